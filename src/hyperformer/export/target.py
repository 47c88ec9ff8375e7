"""What every export target does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperformer.config import EvaluationSettings, ExportSettings
from hyperformer.manifest import Manifest
from hyperformer.model import MultiTaskModel
from hyperformer.tasks import Task


class Target(ABC):
    """Writes the files of tasks, and checks them against torch; made once for all tasks of an export.

    Args:
        model: the trained model.
        settings: of graphs and checks.
        evaluation: how the model answers.
    """

    def __init__(self, model: MultiTaskModel, settings: ExportSettings, evaluation: EvaluationSettings) -> None:
        self.model, self.settings, self.evaluation = model, settings, evaluation

    def begin(self, tasks: Sequence[Task], folder: Path) -> dict[str, str]:
        """Writes what the tasks share, if anything, into the folder that theirs will be in.

        Returns:
            The hashes that the tasks' manifests name it by.
        """
        return {}

    @abstractmethod
    def write(self, task: Task, folder: Path) -> None:
        """Writes what answers the task."""

    @abstractmethod
    def check(
        self, task: Task, folder: Path, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], made: Manifest
    ) -> dict[str, dict[str, float]]:
        """Compares what was written with torch on rows.

        Args:
            rows: every validation row.
            metrics: the model's on these rows, in percent.
            made: the manifest as far as it is known.
        Returns:
            `parity`, and what else there is to say in the manifest.
        Raises:
            HyperFormerError: it is not the model; the sentence names task, input and difference.
        """
