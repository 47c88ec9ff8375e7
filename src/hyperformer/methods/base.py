"""What every method does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from hyperformer.config import AdapterSettings
from hyperformer.types import AdapterWeights, HyperFormerError, Site

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


def adapted(settings: AdapterSettings, sites: Sequence[Site]) -> list[Site]:
    """Those of a backbone's sites that have an adapter."""
    return [
        site
        for site in sites
        if settings.stacks in ("both", site.stack)
        and (settings.positions == "both" or POSITIONS[settings.positions] == site.position)
    ]


def one_each(tasks: Sequence[str]) -> list[list[str]]:
    """Groups of a method that trains a model for each task."""
    return [[task] for task in tasks]


class Method(nn.Module, ABC):
    """Trainable weights for the sites of a backbone, for the tasks of one model.

    Args:
        settings: the method's own settings.
        tasks: names; a task's id is its index.
        sites: the backbone's sites.
        width: the backbone's width d.

    Attributes:
        sites: those that have an adapter, in the order of `AdapterWeights`.
        trains_backbone: whether the whole backbone is trained, and not its layer norms alone.
    """

    trains_backbone: ClassVar[bool] = False
    sites: list[Site]

    @abstractmethod
    def __init__(self, settings: Any, tasks: Sequence[str], sites: Sequence[Site], width: int) -> None:
        super().__init__()

    @staticmethod
    def groups(tasks: Sequence[str]) -> list[list[str]]:
        """Which models to train, by the tasks of each, as many in one as in another: here, one model for all."""
        return [list(tasks)]

    @abstractmethod
    def weights(self, task_ids: Tensor) -> AdapterWeights | None:
        """The adapters of the tasks `task_ids` [n] at `sites`; None where the method has none."""

    def trained_names(self) -> list[str]:
        """The names of the method's own tensors that training changes."""
        return [name for name, _ in self.named_parameters()]
