"""The pipeline `shared_base`: one shared ONNX graph, and a small verified adapter file for each task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import EvaluationSettings, ExportSettings


def export_shared_base(
    checkpoint: Path, rows: Path, metrics: dict[str, Any], export: ExportSettings, evaluation: EvaluationSettings
) -> Callable[[Path], None]:
    """Export the classification and regression tasks of a checkpoint on one shared graph."""
    from hyperformer.export.bundle import export_shared_base as export_tasks

    return export_tasks(checkpoint, rows, metrics, export, evaluation)


def create_pipeline() -> Pipeline:
    """Create the pipeline `shared_base`."""
    return Pipeline(
        [
            Node(
                func=export_shared_base,
                inputs={
                    "checkpoint": "checkpoint",
                    "rows": "rows",
                    "metrics": "metrics",
                    "export": "params:export",
                    "evaluation": "params:evaluation",
                },
                outputs="shared_base",
                name="export_shared_base",
            ),
        ],
        tags="shared_base",
    )
