"""The pipeline `report`: a table of results, an HTML page, and its charts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import ExportSettings, Tasks

log = logging.getLogger(__name__)


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
) -> tuple[str, str, Callable[[Path], None]]:
    """Render the results as Markdown and HTML, and return a function that writes the charts to a folder."""
    from functools import partial

    from hyperformer.report import Run, list_behind, render_page, render_results, summarize, write_charts
    from hyperformer.tasks import make_tasks

    run = Run(
        make_tasks(tasks),
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
        export.label_names,
    )
    summary = summarize(run)
    for sentence in list_behind(summary):
        log.warning(sentence)
    return render_results(summary), render_page(summary), partial(write_charts, summary)


def create_pipeline() -> Pipeline:
    """Create the pipeline `report`."""
    return Pipeline(
        [
            Node(
                func=write_report,
                inputs={
                    "tasks": "params:tasks",
                    "metrics": "metrics",
                    "baselines": "baselines",
                    "split_counts": "split_counts",
                    "parameter_counts": "parameter_counts",
                    "history": "history",
                    "bundles": "bundles",
                    "predictions": "predictions",
                    "checkpoint": "checkpoint",
                    "seed": "params:seed",
                    "export": "params:export",
                },
                outputs=["results", "report", "figures"],
                name="write_report",
            ),
        ],
        tags="report",
    )
