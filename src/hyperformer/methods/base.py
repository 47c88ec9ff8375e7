"""What every method does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from hyperformer.config import MethodSettings
from hyperformer.types import AdapterWeights, Site


class Method(nn.Module, ABC):
    """Trainable weights for the places of a backbone.

    Args:
        settings: the method's settings.
        tasks: names; a task's id is its index.
        sites: the backbone's places for adapters.
        width: the backbone's width d.
    """

    @abstractmethod
    def __init__(self, settings: MethodSettings, tasks: Sequence[str], sites: Sequence[Site], width: int) -> None:
        super().__init__()

    @abstractmethod
    def groups(self, tasks: Sequence[str]) -> list[list[str]]:
        """Which models to train: the tasks of each."""

    @abstractmethod
    def weights(self, task_ids: Tensor) -> AdapterWeights | None:
        """The adapters of the tasks `task_ids` [n] at all sites; None where the method has none."""

    @abstractmethod
    def trained_names(self) -> list[str]:
        """The names of the method's own tensors that training changes."""
