"""`report`: the table of results, for reading and for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.config import Tasks


def write_report(
    tasks: Tasks,
    metrics: dict[str, Any],
    baselines: dict[str, Any],
    split_counts: dict[str, Any],
    parameter_counts: dict[str, float],
    history: list[dict[str, float]],
    bundles: Path,
):
    from hyperformer.report import page, tables
    from hyperformer.tasks import make

    results = tables(make(tasks), metrics, baselines, split_counts, parameter_counts, bundles)
    return results, page(results, history)


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            node(
                write_report,
                [
                    "params:tasks",
                    "metrics",
                    "baselines",
                    "split_counts",
                    "parameter_counts",
                    "history",
                    "bundles",
                ],
                ["results", "report"],
                name="report",
            )
        ],
        tags="report",
    )
