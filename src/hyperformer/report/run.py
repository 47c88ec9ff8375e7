"""The results of a run that a report is rendered from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from hyperformer.core import manifest
from hyperformer.core.manifest import Manifest
from hyperformer.report.predictions import read_predictions
from hyperformer.tasks import Task

# The names that hyperformer.model writes; importing it would import torch.
CONFIGURATION = "configuration.json"
"""The file of a checkpoint's settings."""
WEIGHTS = "trained.safetensors"
"""The file of a checkpoint's weights, if all tasks share one model."""
EMBEDDING = "method.task_embedding.weight"
"""The tensor of task embeddings."""


@dataclass(frozen=True)
class Run:
    """A run's tasks, the metrics that its stages saved, and the paths of its artifacts."""

    tasks: Mapping[str, Task]
    metrics: Mapping[str, Any]
    """Metrics by split and task, in percent."""
    baselines: Mapping[str, Any]
    """Test metrics by task and baseline, in percent."""
    counts: Mapping[str, Any]
    """Row counts by task and split."""
    parameters: Mapping[str, float]
    """Parameter counts, as `hyperformer.model.count_parameters` returns them."""
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

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """Manifests of the exported tasks, by task."""
        return {name: manifest.read(self.bundles / name) for name in self.tasks if (self.bundles / name).is_dir()}

    @cached_property
    def test_predictions(self) -> dict[str, pd.DataFrame]:
        """Test predictions by task."""
        return {name: read_predictions(self.predictions, name) for name in self.tasks}

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Settings that are saved in the checkpoint."""
        settings: dict[str, Any] = json.loads((self.checkpoint / CONFIGURATION).read_text(encoding="utf-8"))
        return settings

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.configuration["method"])

    def read_task_embeddings(self) -> tuple[list[str], NDArray[np.float64]] | None:
        """Read the names of the tasks and their embeddings [tasks, e]; None if the method has no embeddings."""
        file = self.checkpoint / WEIGHTS  # a method with embeddings has one model for all tasks
        if not file.is_file():
            return None
        with safe_open(file, framework="numpy") as tensors:
            if EMBEDDING not in tensors.keys():  # noqa: SIM118 - safe_open returns no mapping
                return None
            return self.configuration["groups"][0], tensors.get_tensor(EMBEDDING).astype(np.float64)
