"""Settings of full fine-tuning."""

from __future__ import annotations

from hyperformer.settings import SettingsModel


class FineTuningSettings(SettingsModel):
    """Settings of full fine-tuning of the backbone: an empty block, because there is nothing to set."""
