"""Settings of the backbone."""

from __future__ import annotations

from hyperformer.settings.base import Positive, SettingsModel


class BackboneSettings(SettingsModel):
    """The pretrained model that all tasks share."""

    path: str
    """Local folder in the layout of transformers, or the name of a model on the Hugging Face Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; null: the default branch."""
    max_source_tokens: Positive
    """Maximum length of a source, in tokens, including special tokens; longer sources are truncated."""
    max_target_tokens: Positive | None = None
    """Maximum length of an answer, in tokens, including </s>. In a generative task, longer training answers are
    truncated, and generation stops at this length. In other tasks, a longer answer is an error. Required for seq2seq
    backbones, and not allowed for encoders.
    """
