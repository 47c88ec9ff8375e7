"""The pipeline `transfer`: few-shot adaptation of a trained model to new tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.settings import Tasks, TransferSettings
from pipelines.curves import start_curves
from pipelines.states import create_cleanup_node


def adapt_model(rows: Path, tasks: Tasks, transfer: TransferSettings, seed: int, resume_states: Path, curves: Path):
    """Adapt a trained checkpoint to each task separately, on sampled training rows of that task."""
    from hyperformer.training import adapt

    return adapt(rows, tasks, transfer, seed, resume_states / "transfer", partial(start_curves, curves))


def create_pipeline() -> Pipeline:
    """Create the pipeline `transfer`."""
    return Pipeline(
        [
            node(
                adapt_model,
                ["rows", "params:tasks", "params:transfer", "params:seed", "resume_states", "curves"],
                ["checkpoint", "transfer_starts"],
                name="adapted",
            ),
            create_cleanup_node("transfer", ["checkpoint", "transfer_starts"]),
        ],
        tags="transfer",
    )
