"""`preprocess`: checked, disjoint splits of every task."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.config import DataSettings, Tasks


def prepare_rows(tasks: Tasks, data: DataSettings, language_rows: Path, seed: int):
    from hyperformer.data import prepare, write_rows
    from hyperformer.tasks import make

    rows, counts = prepare(make(tasks), data, language_rows, seed)
    return write_rows(rows), counts


def create_pipeline() -> Pipeline:
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
