"""Sizes of gradients and updates, by kind of parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from hyperformer.model.tensors import ParameterGroup


class GroupSizes(TrainerCallback):
    """Measures, at some steps, the gradient of each group of parameters and the change that the step makes.

    Attributes:
        values: of the last step that was measured, `gradient/<kind>`: norm of the gradient, after clipping;
            `update/<kind>`: norm of the change, divided by the norm of the parameters.
    """

    def __init__(self, groups: Sequence[ParameterGroup], is_due: Callable[[int, int], bool]) -> None:
        self.values: dict[str, float] = {}
        self._groups, self._is_due = groups, is_due
        self._before: dict[str, list[Tensor]] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the gradients, and copy the parameters, if the step is due."""
        if self._is_due(state.global_step + 1, state.max_steps):
            for group in self._groups:
                gradients = [p.grad for p in group.parameters if p.grad is not None]
                self.values[f"gradient/{group.kind}"] = _norm(gradients)
                self._before[group.kind] = [p.detach().clone() for p in group.parameters]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the change of the parameters since they were copied."""
        for group in self._groups:
            if before := self._before.pop(group.kind, None):
                size = _norm([p.detach() for p in group.parameters])
                change = _norm([p.detach() - old for p, old in zip(group.parameters, before, strict=True)])
                self.values[f"update/{group.kind}"] = change / size if size else 0.0


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm()) if tensors else 0.0
