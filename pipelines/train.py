"""`train`: token ids, then all tasks together."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.config import BackboneSettings, Methods, Tasks, TrainingSettings


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
):
    from hyperformer.training import train

    return train(rows, tokens, tasks, backbone, methods.named(method), training, seed, resume_states)


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
                ],
                ["checkpoint", "history"],
                name="checkpoint",
            ),
        ],
        tags="train",
    )
