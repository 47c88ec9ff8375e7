"""The interface of export targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperformer.core.manifest import Manifest
from hyperformer.model.task_models import TaskModels
from hyperformer.settings import EvaluationSettings, ExportSettings
from hyperformer.tasks import Task


class Target(ABC):
    """An export target: it writes the files of tasks and compares them with PyTorch.

    One instance serves all tasks of an export.

    Args:
        models: the trained models.
        settings: settings of the graphs and of their comparison with PyTorch.
        evaluation: settings that the model predicts with.
    """

    def __init__(self, models: TaskModels, settings: ExportSettings, evaluation: EvaluationSettings) -> None:
        self.models, self.settings, self.evaluation = models, settings, evaluation

    def write_shared(self, tasks: Sequence[Task], folder: Path) -> dict[str, str]:
        """Write the files that all tasks share, if any, into the folder of the bundles.

        Args:
            tasks: the tasks of this target.
            folder: the folder that will hold a folder for each task.

        Returns:
            The hashes of shared files, by the name that each task's manifest records them under.
        """
        return {}

    @abstractmethod
    def write(self, task: Task, folder: Path) -> None:
        """Write the files of a task into its folder: the graphs and the tokenizer, or the adapter."""

    @abstractmethod
    def check(
        self, task: Task, folder: Path, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], draft: Manifest
    ) -> dict[str, dict[str, float]]:
        """Compare the exported task with PyTorch on every validation row.

        Args:
            task: the exported task.
            folder: the task's folder.
            rows: every validation row.
            metrics: metrics of the PyTorch model on these rows, in percent.
            draft: the manifest without the results of this check.

        Returns:
            Fields of the manifest: `parity`, and optionally `int8`.

        Raises:
            HyperFormerError: the exported task differs from PyTorch.
        """
