"""`report`: the table of results, the page that asks of a run what there is to ask, and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.config import ExportSettings, Tasks


def write_report(
    tasks: Tasks,
    metrics: dict[str, Any],
    baselines: dict[str, Any],
    split_counts: dict[str, Any],
    parameter_counts: dict[str, float],
    history: list[dict[str, float]],
    bundles: Path,
    predictions: Path,
    checkpoint: Path,
    seed: int,
    export: ExportSettings,
):
    from functools import partial

    from hyperformer.report import Run, page, tables, write_pictures
    from hyperformer.tasks import make

    run = Run(
        make(tasks),
        metrics,
        baselines,
        split_counts,
        parameter_counts,
        history,
        bundles,
        predictions,
        checkpoint,
        seed,
        export.tolerance,
    )
    return tables(run), page(run), partial(write_pictures, run)


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
                    "predictions",
                    "checkpoint",
                    "params:seed",
                    "params:export",
                ],
                ["results", "report", "figures"],
                name="report",
            )
        ],
        tags="report",
    )
