"""The pipeline `export`: a verified ONNX bundle for each task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import EvaluationSettings, ExportSettings

INPUTS = {
    "checkpoint": "checkpoint",
    "rows": "rows",
    "metrics": "metrics",
    "baselines": "baselines",
    "export": "params:export",
    "evaluation": "params:evaluation",
}
"""Inputs of the nodes that export a checkpoint."""


def export_bundles(
    checkpoint: Path,
    rows: Path,
    metrics: dict[str, Any],
    baselines: dict[str, Any],
    export: ExportSettings,
    evaluation: EvaluationSettings,
) -> Callable[[Path], None]:
    """Export each task of a checkpoint as a bundle."""
    from hyperformer.export.bundle import export as export_tasks

    return export_tasks(checkpoint, rows, metrics, baselines, export, evaluation)


def create_pipeline() -> Pipeline:
    """Create the pipeline `export`."""
    return Pipeline([Node(func=export_bundles, inputs=INPUTS, outputs="bundles", name="export_bundles")], tags="export")
