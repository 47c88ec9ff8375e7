"""The pipeline `shared_base`: one shared ONNX graph, and a small verified adapter file for each task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import EvaluationSettings, ExportSettings
from pipelines.export import INPUTS


def export_shared_base(
    checkpoint: Path,
    rows: Path,
    metrics: dict[str, Any],
    baselines: dict[str, Any],
    export: ExportSettings,
    evaluation: EvaluationSettings,
) -> Callable[[Path], None]:
    """Export the classification and regression tasks of a checkpoint on one shared graph."""
    from hyperformer.export.bundle import export_shared_base as export_tasks

    return export_tasks(checkpoint, rows, metrics, baselines, export, evaluation)


def create_pipeline() -> Pipeline:
    """Create the pipeline `shared_base`."""
    node = Node(func=export_shared_base, inputs=INPUTS, outputs="shared_base", name="export_shared_base")
    return Pipeline([node], tags="shared_base")
