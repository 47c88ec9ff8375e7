"""The interface of export targets: `write`, `describe`, `check` and `finish`, in this order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperformer.core.files import sha256
from hyperformer.core.manifest import FORMAT, MANIFEST, MODEL_CARD, Manifest
from hyperformer.export import card
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

    def describe(self, task: Task, folder: Path, metrics: Mapping[str, float], made_from: dict[str, str]) -> Manifest:
        """Describe the files of a task in a manifest, without baselines and the results of `check`.

        Args:
            task: the exported task.
            folder: the task's folder.
            metrics: test metrics of the task, in percent.
            made_from: hashes of the inputs of the export.
        """
        trained = self.models[task.name]
        return Manifest(
            format=FORMAT,
            task=task.name,
            kind=task.settings.kind,
            text=trained.backbone.format_template(task.settings.text),
            missing=task.missing,
            labels=task.answers,
            numbers=task.numbers,
            max_source_tokens=trained.backbone_settings.max_source_tokens,
            opset=self.settings.opset,
            backbone=trained.backbone_settings.path,
            method=trained.method_settings.name,
            files=hash_files(folder),
            parity={},
            int8={},
            openvino={},
            metrics=dict(metrics),
            baselines={},
            published=True,
            made_from=made_from,
        )

    @abstractmethod
    def check(
        self,
        task: Task,
        folder: Path,
        rows: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, float],
        description: Manifest,
    ) -> dict[str, dict[str, float]]:
        """Compare the exported task with PyTorch on every validation row; the folder is not changed.

        Args:
            task: the exported task.
            folder: the task's folder.
            rows: every validation row.
            metrics: metrics of the PyTorch model on these rows, in percent.
            description: the manifest without the results of this check, as `describe` returns it.

        Returns:
            Fields of the manifest: `parity`, and optionally `int8` and `openvino`.

        Raises:
            HyperFormerError: the exported task differs from PyTorch.
        """

    def finish(self, folder: Path, description: Manifest) -> Manifest:
        """Complete the folder after the check: remove what failed it, then write the model card and the manifest.

        Args:
            folder: the task's folder.
            description: the manifest with the results of the check.

        Returns:
            The manifest that was written.
        """
        (folder / MODEL_CARD).write_text(card.render_card(description), encoding="utf-8")
        written = replace(description, files=hash_files(folder))
        written.write(folder)
        return written


def hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file except the manifest, by its path in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
