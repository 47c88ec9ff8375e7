"""`transfer`: a trained model adapted to the tasks at hand, each from a few of its rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.config import Tasks, TransferSettings
from pipelines.curves import started
from pipelines.states import states_removed


def adapt_model(rows: Path, tasks: Tasks, transfer: TransferSettings, seed: int, resume_states: Path, curves: Path):
    from hyperformer.training import adapt

    return adapt(rows, tasks, transfer, seed, resume_states / "transfer", partial(started, curves))


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            node(
                adapt_model,
                ["rows", "params:tasks", "params:transfer", "params:seed", "resume_states", "curves"],
                ["checkpoint", "transfer_starts"],
                name="adapted",
            ),
            states_removed("transfer", ["checkpoint", "transfer_starts"]),
        ],
        tags="transfer",
    )
