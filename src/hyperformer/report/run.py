"""The inputs of a report: dictionaries and files that earlier stages of a run saved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import report_damage
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
    """Metrics by split, task and baseline, in percent; the key `notes` has the notes by task and subject."""
    counts: Mapping[str, Any]
    """Row counts by task and split."""
    parameters: Mapping[str, float]
    """Parameter counts, as `hyperformer.model.counts.count_parameters` returns them."""
    history: Sequence[Mapping[str, Any]]
    """Validations in the order of their `step`, each with the scores of the tasks and their `mean`, in percent, and
    `diagnostics` of the weights.
    """
    bundles: Path
    """Folder of exported bundles."""
    predictions: Path
    """Folder of predictions by task."""
    checkpoint: Path
    """Folder of the trained checkpoint."""
    seed: int
    tolerance: float
    """The setting `export.tolerance`."""
    label_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The setting `export.label_names`: names of labels, other than those that were trained, by task and label."""

    def __post_init__(self) -> None:
        for name in self.tasks:
            for results, kind in (
                (self.metrics.get("test", {}), "metrics"),
                (self.baselines.get("test", {}), "baselines"),
                (self.counts, "row counts"),
            ):
                if name not in results:
                    raise HyperFormerError(
                        f"there are no {kind} of the task {name!r}; expected those of every task in the settings. Run "
                        "the pipelines that write them again."
                    )

    def read_manifests(self) -> dict[str, Manifest]:
        """Read the manifests of the exported tasks, by task."""
        return {name: manifest.read(self.bundles / name) for name in self.tasks if (self.bundles / name).is_dir()}

    def read_file_sizes(self, task: str, files: Iterable[str]) -> dict[str, float]:
        """Read the size of each file in the bundle of a task, in megabytes, by file name."""
        return {name: (self.bundles / task / name).stat().st_size / 1e6 for name in files}

    def read_predictions(self, task: str) -> pd.DataFrame:
        """Read the test predictions of a task, with labels as trained; `NA` and empty texts stay strings."""
        file = self.predictions / task / "test.csv"
        with report_damage(file):
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            if missing := {"truth", "answer"} - set(table.columns):
                raise ValueError(f"it has no column {min(missing)!r}")
        for column in {"probability", "value"} & set(table.columns):
            table[column] = pd.to_numeric(table[column])
        return table

    def read_configuration(self) -> dict[str, Any]:
        """Read the settings that are saved in the checkpoint."""
        file = self.checkpoint / CONFIGURATION
        with report_damage(file):
            settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if missing := {"backbone", "groups", "method"} - set(settings):
                raise ValueError(f"it has no {min(missing)!r}")
        return settings

    def read_task_embeddings(self) -> NDArray[np.float64] | None:
        """Read the task embeddings [tasks, e]; None if the method has none.

        The tasks are those of the first group in the checkpoint's settings.
        """
        file = self.checkpoint / WEIGHTS  # a method with embeddings has one model for all tasks
        if not file.exists():
            return None
        with report_damage(file, SafetensorError), safe_open(file, framework="numpy") as tensors:
            if TASK_EMBEDDING not in tensors.keys():  # noqa: SIM118 - safe_open returns no mapping
                return None
            return tensors.get_tensor(TASK_EMBEDDING).astype(np.float64)
