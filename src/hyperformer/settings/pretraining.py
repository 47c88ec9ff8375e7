"""Settings of pretraining."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from hyperformer.settings.base import Fraction, Positive, SettingsModel
from hyperformer.settings.training import LoopSettings


class T5Sizes(SettingsModel):
    """Sizes of the T5 to pretrain; names and meanings are those of transformers' `T5Config`."""

    d_model: Positive
    d_kv: Positive
    d_ff: Positive
    num_layers: Positive
    num_decoder_layers: Positive
    num_heads: Annotated[int, Field(ge=4)]
    """At least 4: in the encoder, two heads initially attend to adjacent tokens, and two to equal tokens."""
    dropout_rate: Fraction = 0.1
    feed_forward_proj: str = "relu"


class PretrainingSettings(LoopSettings):
    """Settings to pretrain a small backbone from text."""

    batch_size: Positive
    """Rows per batch."""
    rows: Positive
    """Number of pretraining rows to generate."""
    text_file: str | None = None
    """UTF-8 text file with one paragraph per line, used together with the training texts of all tasks.
    null: generated text of the embedded language.
    """
    vocab_size: Positive
    """Maximum number of tokens of the tokenizer that is trained on the text."""
    sizes: T5Sizes
    max_tokens: Positive
    """Maximum length of a source and of a target, in tokens; longer texts are truncated."""
    noise_density: Fraction = 0.15
    """Fraction of a source's tokens that span corruption masks."""
    mean_noise_span_length: Annotated[float, Field(ge=1)] = 3.0
    """Mean length of a masked span, in tokens."""
