"""The pipeline `preprocess`: validated, disjoint splits of every task."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.settings import DataSettings, Tasks


def prepare_rows(tasks: Tasks, data: DataSettings, language_rows: Path, seed: int):
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
            node(
                prepare_rows,
                ["params:tasks", "params:data", "language_rows", "params:seed"],
                ["rows", "split_counts"],
                name="rows",
            )
        ],
        tags="preprocess",
    )
