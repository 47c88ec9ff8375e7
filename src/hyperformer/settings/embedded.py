"""Settings of the embedded language."""

from __future__ import annotations

from hyperformer.settings.base import Positive, SettingsModel


class EmbeddedSettings(SettingsModel):
    """Number of rows to generate for each task of the embedded language, by split."""

    train: Positive
    small_train: Positive
    """Number of training rows of a low-resource task, instead of `train`."""
    validation: Positive
    test: Positive
