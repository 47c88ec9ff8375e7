"""What every method does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hyperformer.config import AdapterSettings
from hyperformer.types import AdapterWeights, HeadWeights, HyperFormerError, Site

INITIAL_STD = 0.01  # of every weight of the authors' adapters and hypernetworks
POSITIONS = {"feed_forward": 0, "self_attention": 1}


def bottleneck(settings: AdapterSettings, width: int) -> int:
    """The adapters' width r = d / reduction factor.

    Raises:
        HyperFormerError: the reduction factor leaves no whole bottleneck.
    """
    found, rest = divmod(width, settings.reduction_factor)
    if rest or not found:
        raise HyperFormerError(
            f"the method's reduction_factor is {settings.reduction_factor}, expected a divisor of the backbone's width "
            f"{width}"
        )
    return found


def initial_gain(settings: AdapterSettings) -> float:
    """Where the gain of a trained layer norm starts."""
    return 0.0 if settings.adapter_init == "identity" else 1.0


def adapted(settings: AdapterSettings, sites: Sequence[Site]) -> list[Site]:
    """Those of a backbone's sites that have an adapter.

    Raises:
        HyperFormerError: none has.
    """
    found = [
        site
        for site in sites
        if settings.stacks in ("both", site.stack)
        and (settings.positions == "both" or POSITIONS[settings.positions] == site.position)
    ]
    if not found:
        raise HyperFormerError(f"the method's stacks are {settings.stacks!r}, but the backbone has none; take 'both'")
    return found


def one_each(tasks: Sequence[str]) -> list[list[str]]:
    """Groups of a method that trains a model for each task."""
    return [[task] for task in tasks]


class TrainedHeads(nn.Module):
    """A head of k rows for each task: weight [tasks, k, d], bias [tasks, k]."""

    def __init__(self, tasks: int, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tasks, rows, width).normal_(std=INITIAL_STD))
        self.bias = nn.Parameter(torch.zeros(tasks, rows))

    def forward(self, task_ids: Tensor) -> HeadWeights:
        return HeadWeights(self.weight[task_ids], self.bias[task_ids])


class Method(nn.Module, ABC):
    """Trainable weights for the sites of a backbone, for the tasks of one model.

    Args:
        settings: the method's own settings.
        tasks: names; a task's id is its index.
        sites: the backbone's sites.
        width: the backbone's width d.
        head_rows: k, of the head that the backbone needs for each task; 0 where it needs none.

    Attributes:
        sites: those that have an adapter, in the order of `AdapterWeights`.
        trains_backbone: whether the whole backbone is trained, and not its layer norms alone.
        own: the names that tensors which hold an entry for each task, [tasks, …], can have.
    """

    trains_backbone: ClassVar[bool] = False
    own: ClassVar[tuple[str, ...]] = ("heads.weight", "heads.bias")
    sites: list[Site]

    @abstractmethod
    def __init__(
        self, settings: Any, tasks: Sequence[str], sites: Sequence[Site], width: int, head_rows: int = 0
    ) -> None:
        super().__init__()
        self.heads = TrainedHeads(len(tasks), head_rows, width) if head_rows else None

    @staticmethod
    def groups(tasks: Sequence[str]) -> list[list[str]]:
        """Which models to train, by the tasks of each, as many in one as in another: here, one model for all."""
        return [list(tasks)]

    @abstractmethod
    def weights(self, task_ids: Tensor) -> AdapterWeights | None:
        """The adapters of the tasks `task_ids` [n] at `sites`; None where the method has none."""

    def head(self, task_ids: Tensor) -> HeadWeights | None:
        """The heads of the tasks `task_ids` [n]; None where the backbone needs none."""
        return None if self.heads is None else self.heads(task_ids)

    def own_names(self) -> list[str]:
        """The names of the tensors that hold an entry for each task, [tasks, …]; all others are shared."""
        return [name for name, _ in self.named_parameters() if name in self.own]

    def trained_names(self) -> list[str]:
        """The names of the method's own tensors that training changes."""
        return [name for name, _ in self.named_parameters()]
