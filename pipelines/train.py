"""The pipeline `train`: encoding of the training rows into token ids, then multi-task training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import BackboneSettings, Methods, Tasks, TrainingSettings
from pipelines.cleanup import create_cleanup_node
from pipelines.curves import start_curves


def encode_rows(rows: Path, tasks: Tasks, backbone: BackboneSettings) -> Callable[[Path], None]:
    """Encode the training rows of all tasks into token ids."""
    from hyperformer.training import encode

    return encode(rows, tasks, backbone)


def train_model(
    rows: Path,
    tokens: Path,
    tasks: Tasks,
    backbone: BackboneSettings,
    method: str,
    methods: Methods,
    training: TrainingSettings,
    seed: int,
    resume_states: Path,
    curves: Path,
    threads: int | None,
) -> tuple[Callable[[Path], None], list[dict[str, Any]]]:
    """Train the configured method on all tasks."""
    from hyperformer.training import train

    settings, start = methods.get_method(method), partial(start_curves, curves)
    return train(rows, tokens, tasks, backbone, settings, training, seed, resume_states / "train", start, threads)


def create_pipeline() -> Pipeline:
    """Create the pipeline `train`."""
    return Pipeline(
        [
            Node(
                func=encode_rows,
                inputs={
                    "rows": "rows",
                    "tasks": "params:tasks",
                    "backbone": "params:backbone",
                },
                outputs="tokens",
                name="encode_rows",
            ),
            Node(
                func=train_model,
                inputs={
                    "rows": "rows",
                    "tokens": "tokens",
                    "tasks": "params:tasks",
                    "backbone": "params:backbone",
                    "method": "params:method",
                    "methods": "params:methods",
                    "training": "params:training",
                    "seed": "params:seed",
                    "resume_states": "resume_states",
                    "curves": "curves",
                    "threads": "params:threads",
                },
                outputs=["checkpoint", "history"],
                name="train_model",
            ),
            create_cleanup_node("train", ["checkpoint", "history"]),
        ],
        tags="train",
    )
