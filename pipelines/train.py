"""The pipeline `train`: encoding of the training rows into token ids, then multi-task training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.settings import BackboneSettings, Methods, Tasks, TrainingSettings
from pipelines.curves import start_curves
from pipelines.states import create_cleanup_node


def encode_rows(rows: Path, tasks: Tasks, backbone: BackboneSettings):
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
):
    """Train the configured method on all tasks."""
    from hyperformer.training import train

    settings, start = methods.get_method(method), partial(start_curves, curves)
    return train(rows, tokens, tasks, backbone, settings, training, seed, resume_states / "train", start)


def create_pipeline() -> Pipeline:
    """Create the pipeline `train`."""
    return Pipeline(
        [
            node(encode_rows, ["rows", "params:tasks", "params:backbone"], "tokens", name="tokens"),
            node(
                train_model,
                [
                    "rows",
                    "tokens",
                    "params:tasks",
                    "params:backbone",
                    "params:method",
                    "params:methods",
                    "params:training",
                    "params:seed",
                    "resume_states",
                    "curves",
                ],
                ["checkpoint", "history"],
                name="checkpoint",
            ),
            create_cleanup_node("train", ["checkpoint", "history"]),
        ],
        tags="train",
    )
