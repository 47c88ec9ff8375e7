"""The pipeline `shared_base`: one shared ONNX graph, and a small verified adapter file for each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.settings import EvaluationSettings, ExportSettings


def export_shared_base(
    checkpoint: Path, rows: Path, metrics: dict[str, Any], export: ExportSettings, evaluation: EvaluationSettings
):
    """Export the classification and regression tasks of a checkpoint on one shared graph."""
    from hyperformer.export.bundle import export_shared_base as export_tasks

    return export_tasks(checkpoint, rows, metrics, export, evaluation)


def create_pipeline() -> Pipeline:
    """Create the pipeline `shared_base`."""
    return Pipeline(
        [
            node(
                export_shared_base,
                ["checkpoint", "rows", "metrics", "params:export", "params:evaluation"],
                "shared_base",
                name="shared_base",
            )
        ],
        tags="shared_base",
    )
