"""`train`: token ids, then all tasks together."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.config import BackboneSettings, Methods, Tasks, TrainingSettings
from pipelines.curves import started
from pipelines.states import states_removed


def encode_rows(rows: Path, tasks: Tasks, backbone: BackboneSettings):
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
    from hyperformer.training import train

    chosen, shown = methods.named(method), partial(started, curves)
    return train(rows, tokens, tasks, backbone, chosen, training, seed, resume_states / "train", shown)


def create_pipeline() -> Pipeline:
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
            states_removed("train", ["checkpoint", "history"]),
        ],
        tags="train",
    )
