"""Settings of full fine-tuning."""

from __future__ import annotations

from hyperformer.methods.learning_rates import FineTuningMultipliers
from hyperformer.settings import SettingsModel


class FineTuningSettings(SettingsModel):
    """Settings of full fine-tuning of the backbone."""

    learning_rate_multipliers: FineTuningMultipliers = FineTuningMultipliers()
    """Factors on the learning rate by kind of parameter."""
