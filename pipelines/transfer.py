"""The pipeline `transfer`: few-shot adaptation of a trained model to new tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import Tasks, TransferSettings
from pipelines.cleanup import create_cleanup_node
from pipelines.curves import start_curves


def adapt_model(
    rows: Path,
    tasks: Tasks,
    transfer: TransferSettings,
    seed: int,
    resume_states: Path,
    curves: Path,
    threads: int | None,
) -> tuple[Callable[[Path], None], dict[str, str]]:
    """Adapt a trained checkpoint to each task separately, on sampled training rows of that task."""
    from hyperformer.training import adapt

    return adapt(rows, tasks, transfer, seed, resume_states / "transfer", partial(start_curves, curves), threads)


def create_pipeline() -> Pipeline:
    """Create the pipeline `transfer`."""
    return Pipeline(
        [
            Node(
                func=adapt_model,
                inputs={
                    "rows": "rows",
                    "tasks": "params:tasks",
                    "transfer": "params:transfer",
                    "seed": "params:seed",
                    "resume_states": "resume_states",
                    "curves": "curves",
                    "threads": "params:threads",
                },
                outputs=["checkpoint", "transfer_starts"],
                name="adapt_model",
            ),
            create_cleanup_node("transfer", ["checkpoint", "transfer_starts"]),
        ],
        tags="transfer",
    )
