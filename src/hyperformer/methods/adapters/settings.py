"""Settings of all methods with adapters."""

from __future__ import annotations

from typing import Literal

from hyperformer.methods.learning_rates import AdapterMultipliers
from hyperformer.settings import SettingsModel
from hyperformer.settings.base import Positive


class AdapterSettings(SettingsModel):
    """Settings of all methods with adapters."""

    reduction_factor: Positive
    """The adapters' bottleneck dimension is the backbone's hidden size divided by this factor."""
    activation: Literal["gelu_new", "gelu", "relu", "silu", "tanh"] = "gelu_new"
    """Activation function of the adapters."""
    positions: Literal["both", "feed_forward", "self_attention"] = "both"
    """Sublayers of each block after which adapters are inserted."""
    stacks: Literal["both", "encoder", "decoder"] = "both"
    """Stacks whose blocks have adapters."""
    adapter_init: Literal["paper", "identity"] = "paper"
    """Initial effect of the adapters. `paper`: a small random change, as in the authors' code. `identity`: no change,
    because gain and shift of the adapters' layer norms start at 0. Use `identity` for backbones whose sublayers have
    small outputs, such as BERT: the layer norm of `paper` amplifies the random change until it dominates these outputs.
    """
    learning_rate_multipliers: AdapterMultipliers = AdapterMultipliers()
    """Factors on the learning rate by kind of parameter."""
