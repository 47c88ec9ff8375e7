"""The pipeline `export`: a verified ONNX bundle for each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.settings import EvaluationSettings, ExportSettings


def export_bundles(
    checkpoint: Path, rows: Path, metrics: dict[str, Any], export: ExportSettings, evaluation: EvaluationSettings
):
    """Export each task of a checkpoint as a bundle."""
    from hyperformer.export.bundle import export as export_tasks

    return export_tasks(checkpoint, rows, metrics, export, evaluation)


def create_pipeline() -> Pipeline:
    """Create the pipeline `export`."""
    return Pipeline(
        [
            node(
                export_bundles,
                ["checkpoint", "rows", "metrics", "params:export", "params:evaluation"],
                "bundles",
                name="bundles",
            )
        ],
        tags="export",
    )
