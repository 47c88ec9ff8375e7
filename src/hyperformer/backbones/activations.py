"""Activation functions by a single kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.activations import NewGELUActivation


def get_activation(module: Any) -> Callable[[Tensor], Tensor]:
    """Return the function of an activation module, by one kernel where the module of transformers runs several."""
    function: Callable[[Tensor], Tensor] = nn.GELU("tanh") if isinstance(module, NewGELUActivation) else module
    return function
