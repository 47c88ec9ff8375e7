"""The inputs of a report: dictionaries and files that earlier stages of a run saved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from hyperformer.core import manifest
from hyperformer.core.manifest import Manifest
from hyperformer.model.checkpoint import CONFIGURATION, TASK_EMBEDDING, WEIGHTS
from hyperformer.tasks import Task


@dataclass(frozen=True)
class Run:
    """A run's tasks, the metrics that its stages saved, and the paths of its artifacts."""

    tasks: Mapping[str, Task]
    metrics: Mapping[str, Any]
    """Metrics by split and task, in percent."""
    baselines: Mapping[str, Any]
    """Test metrics by task and baseline, in percent; the key `notes` of a task has its notes by subject."""
    counts: Mapping[str, Any]
    """Row counts by task and split."""
    parameters: Mapping[str, float]
    """Parameter counts, as `hyperformer.model.counts.count_parameters` returns them."""
    history: Sequence[Mapping[str, float]]
    """Validations in the order of their `step`, each with the scores of the tasks and their `mean`, in percent."""
    bundles: Path
    """Folder of exported bundles."""
    predictions: Path
    """Folder of predictions by task."""
    checkpoint: Path
    """Folder of the trained checkpoint."""
    seed: int
    tolerance: float
    """The setting `export.tolerance`."""

    def read_manifests(self) -> dict[str, Manifest]:
        """Read the manifests of the exported tasks, by task."""
        return {name: manifest.read(self.bundles / name) for name in self.tasks if (self.bundles / name).is_dir()}

    def read_file_sizes(self, task: str, files: Iterable[str]) -> dict[str, float]:
        """Read the size of each file in the bundle of a task, in megabytes, by file name."""
        return {name: (self.bundles / task / name).stat().st_size / 1e6 for name in files}

    def read_predictions(self, task: str) -> pd.DataFrame:
        """Read the test predictions of a task; texts such as `NA` and empty texts stay strings."""
        table = pd.read_csv(self.predictions / task / "test.csv", dtype=str, keep_default_na=False)
        for column in {"probability", "value"} & set(table.columns):
            table[column] = pd.to_numeric(table[column])
        return table

    def read_configuration(self) -> dict[str, Any]:
        """Read the settings that are saved in the checkpoint."""
        settings: dict[str, Any] = json.loads((self.checkpoint / CONFIGURATION).read_text(encoding="utf-8"))
        return settings

    def read_task_embeddings(self) -> NDArray[np.float64] | None:
        """Read the task embeddings [tasks, e]; None if the method has none.

        The tasks are those of the first group in the checkpoint's settings.
        """
        file = self.checkpoint / WEIGHTS  # a method with embeddings has one model for all tasks
        if not file.is_file():
            return None
        with safe_open(file, framework="numpy") as tensors:
            if TASK_EMBEDDING not in tensors.keys():  # noqa: SIM118 - safe_open returns no mapping
                return None
            return tensors.get_tensor(TASK_EMBEDDING).astype(np.float64)
