"""What every method does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from hyperformer.config import AdapterSettings, OneMethodSettings
from hyperformer.types import AdapterWeights, HyperFormerError, Site


def bottleneck(settings: AdapterSettings, width: int) -> int:
    """The adapters' width r = d / reduction factor.

    Raises:
        HyperFormerError: the reduction factor leaves no whole bottleneck.
    """
    found, rest = divmod(width, settings.reduction_factor)
    if rest or not found:
        raise HyperFormerError(
            f"method.reduction_factor is {settings.reduction_factor}, expected a divisor of the backbone's width "
            f"{width}"
        )
    return found


class Method(nn.Module, ABC):
    """Trainable weights for the places of a backbone.

    Args:
        settings: the method's settings.
        tasks: names; a task's id is its index.
        sites: the backbone's places for adapters.
        width: the backbone's width d.

    Attributes:
        trains_backbone: whether the whole backbone is trained, and not its layer norms alone.
    """

    trains_backbone: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, settings: OneMethodSettings, tasks: Sequence[str], sites: Sequence[Site], width: int) -> None:
        super().__init__()

    def groups(self, tasks: Sequence[str]) -> list[list[str]]:
        """Which models to train: the tasks of each. One for all, unless the method says otherwise."""
        return [list(tasks)]

    @abstractmethod
    def weights(self, task_ids: Tensor) -> AdapterWeights | None:
        """The adapters of the tasks `task_ids` [n] at all sites; None where the method has none."""

    def trained_names(self) -> list[str]:
        """The names of the method's own tensors that training changes."""
        return [name for name, _ in self.named_parameters()]
