"""The pipeline `check_quality`: it fails if a task is not better than a guess, once everything else is complete."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import ExportSettings, Tasks


def check_tasks(
    metrics: dict[str, Any], baselines: dict[str, Any], tasks: Tasks, export: ExportSettings, results: str
) -> None:
    """Check that the model of each task is above the majority baseline on validation; `results` only sets the order."""
    from hyperformer.quality import check_quality
    from hyperformer.tasks import make_tasks

    check_quality(metrics, baselines, make_tasks(tasks), export.allow_below_majority)


def create_pipeline() -> Pipeline:
    """Create the pipeline `check_quality`."""
    return Pipeline(
        [
            Node(
                func=check_tasks,
                inputs={
                    "metrics": "metrics",
                    "baselines": "baselines",
                    "tasks": "params:tasks",
                    "export": "params:export",
                    "results": "results",
                },
                outputs=None,
                name="check_quality",
            ),
        ],
        tags="check_quality",
    )
