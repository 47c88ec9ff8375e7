"""The interface of all methods, and helpers that several methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hyperformer.core.types import AdapterWeights, HeadWeights, Site

INITIAL_STD = 0.01
"""Standard deviation of the initial weights of the authors' adapters and hypernetworks."""


class TrainedHeads(nn.Module):
    """Heads with k outputs for t tasks, as parameters: weight [t, k, d], bias [t, k]."""

    def __init__(self, tasks: int, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tasks, rows, width).normal_(std=INITIAL_STD))
        self.bias = nn.Parameter(torch.zeros(tasks, rows))

    def forward(self, task_ids: Tensor) -> HeadWeights:
        """Return the heads of the tasks `task_ids` [n]."""
        return HeadWeights(self.weight[task_ids], self.bias[task_ids])


class Method(nn.Module, ABC):
    """Base class of methods: the trainable adapters and heads of the tasks that share one model.

    Args:
        settings: the method's settings.
        tasks: names of the tasks; a task's id is its index.
        sites: the backbone's adapter sites.
        width: the backbone's hidden size d.
        head_rows: number k of outputs of each task's head; 0 if the backbone needs no heads.

    Attributes:
        sites: the sites that have an adapter, in the order of `AdapterWeights`.
        activation: transformers' name of the adapters' activation function; without effect if there are no sites.
        trains_backbone: whether the whole backbone is trained, instead of only its layer norms.
        task_specific: possible names of task-specific tensors; such a tensor has one entry per task, [t, …].
        main_kind: kind of the parameters that no other rule of `parameter_kind` covers.
    """

    main_kind: ClassVar[str] = "adapters"
    trains_backbone: ClassVar[bool] = False
    task_specific: ClassVar[tuple[str, ...]] = ("heads.weight", "heads.bias")
    sites: list[Site]
    activation: str = "gelu_new"

    @abstractmethod
    def __init__(
        self, settings: Any, tasks: Sequence[str], sites: Sequence[Site], width: int, head_rows: int = 0
    ) -> None:
        super().__init__()
        self._multipliers: dict[str, float] = dict(getattr(settings, "learning_rate_multipliers", ()))
        self.heads = TrainedHeads(len(tasks), head_rows, width) if head_rows else None

    @abstractmethod
    def weights(self, task_ids: Tensor) -> AdapterWeights | None:
        """Return the adapters of the tasks `task_ids` [n] at `sites`; None if the method has no adapters."""

    def head(self, task_ids: Tensor) -> HeadWeights | None:
        """Return the heads of the tasks `task_ids` [n]; None if the backbone needs no heads."""
        return None if self.heads is None else self.heads(task_ids)

    def task_specific_names(self) -> list[str]:
        """Return the names of the task-specific tensors, [t, …]; all other tensors are shared by the tasks."""
        return [name for name, _ in self.named_parameters() if name in self.task_specific]

    @property
    def backbone_kind(self) -> str:
        """The kind of the backbone's trained parameters."""
        return "backbone" if self.trains_backbone else "layer_norms"

    def parameter_kind(self, name: str) -> str:
        """Return the kind of one of the method's parameters, which is a field of `learning_rate_multipliers`."""
        return "heads" if name.startswith("heads.") else self.main_kind

    def multiplier(self, kind: str) -> float:
        """Return the factor on the learning rate of a kind of parameters; 1 if the settings have none."""
        return self._multipliers.get(kind, 1.0)

    def offset_names(self) -> list[str]:
        """Return the names of parameters that start at 0, so that a task starts with the adapter that all share."""
        return []

    def diagnose(self) -> dict[str, float]:
        """Measure by how much the adapters of the tasks differ; empty if the method has no task-specific adapters.

        Returns:
            `task_share`: the share of the variation between tasks in the squared weights of the adapters' projections,
            from 0 to 1; see `compute_task_share`. Hypernetworks add further measures.
        """
        return {}


@torch.no_grad()
def compute_task_share(weights: AdapterWeights) -> float:
    """Compute the task-specific share of the adapters' projections `down` and `up`, from 0 to 1.

    It is Σ|w - mean over tasks|² / Σ|w|², summed over tasks, sites and weights: 0 if the tasks' adapters are equal, and
    (n - 1) / n if those of n tasks are independent.
    """
    tensors = (weights.down, weights.up)
    total = sum(float(tensor.square().sum()) for tensor in tensors)
    deviation = sum(float((tensor - tensor.mean(0)).square().sum()) for tensor in tensors)
    return deviation / total if total else 0.0
