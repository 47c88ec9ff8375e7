"""The pipeline `preprocess`: validated, disjoint splits of every task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import DataSettings, Tasks


def prepare_rows(
    tasks: Tasks, data: DataSettings, language_rows: Path, seed: int
) -> tuple[Callable[[Path], None], dict[str, Any]]:
    """Validate the rows of each task, and divide them into disjoint splits."""
    from hyperformer.data.splits import prepare
    from hyperformer.data.storage import write_rows
    from hyperformer.tasks import make_tasks

    rows, counts = prepare(make_tasks(tasks), data, language_rows, seed)
    return write_rows(rows), counts


def create_pipeline() -> Pipeline:
    """Create the pipeline `preprocess`."""
    return Pipeline(
        [
            Node(
                func=prepare_rows,
                inputs={
                    "tasks": "params:tasks",
                    "data": "params:data",
                    "language_rows": "language_rows",
                    "seed": "params:seed",
                },
                outputs=["rows", "split_counts"],
                name="prepare_rows",
            ),
        ],
        tags="preprocess",
    )
