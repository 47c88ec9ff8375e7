"""Settings of full fine-tuning."""

from __future__ import annotations

from hyperformer.methods.learning_rates import HeadMultipliers
from hyperformer.settings import SettingsModel


class FineTuningSettings(SettingsModel):
    """Settings of full fine-tuning of the backbone."""

    learning_rate_multipliers: HeadMultipliers = HeadMultipliers()
    """Factors on the learning rate by kind of parameter; the backbone has the factor 1."""
