"""What a report is made from."""

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

from hyperformer import manifest
from hyperformer.manifest import Manifest
from hyperformer.report.predictions import read
from hyperformer.tasks import Task

CONFIGURATION, WEIGHTS, EMBEDDING = "configuration.json", "trained.safetensors", "method.task_embedding.weight"
"""A checkpoint's files and tensor as hyperformer.model writes them, which cannot be imported without torch."""


@dataclass(frozen=True)
class Run:
    """A run's tasks, its figures as the stages left them, and where the rest lies.

    `metrics`, `baselines` and `history` are in percent; `counts` are rows by task and split; `parameters` are those of
    `model.parameter_counts`; `bundles`, `predictions` and `checkpoint` are folders; `tolerance` is `export.tolerance`.
    """

    tasks: Mapping[str, Task]
    metrics: Mapping[str, Any]
    baselines: Mapping[str, Any]
    counts: Mapping[str, Any]
    parameters: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    bundles: Path
    predictions: Path
    checkpoint: Path
    seed: int
    tolerance: float

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """Of the tasks that were exported."""
        return {name: manifest.read(self.bundles / name) for name in self.tasks if (self.bundles / name).is_dir()}

    @cached_property
    def answers(self) -> dict[str, pd.DataFrame]:
        """The test predictions of each task."""
        return {name: read(self.predictions, name) for name in self.tasks}

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The checkpoint's own settings."""
        found: dict[str, Any] = json.loads((self.checkpoint / CONFIGURATION).read_text(encoding="utf-8"))
        return found

    @property
    def method(self) -> str:
        return str(self.configuration["method"])

    def embeddings(self) -> tuple[list[str], NDArray[np.float64]] | None:
        """Names of tasks and their embeddings [tasks, e]; None where the method has none."""
        file = self.checkpoint / WEIGHTS  # a method with embeddings has one model for all tasks
        if not file.is_file():
            return None
        with safe_open(file, framework="numpy") as tensors:
            if EMBEDDING not in tensors.keys():  # noqa: SIM118 - it is no mapping
                return None
            return self.configuration["groups"][0], tensors.get_tensor(EMBEDDING).astype(np.float64)
