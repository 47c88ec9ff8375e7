"""The pipeline `export`: a verified ONNX bundle for each task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import EvaluationSettings, ExportSettings


def create_export_node(name: str, output: str, shared_base: bool) -> Node:
    """Create a node that exports the tasks of a checkpoint, as separate bundles or on one shared base.

    Args:
        name: Name of the node.
        output: Dataset of the exported tasks.
        shared_base: Export the classification and regression tasks on one shared graph.
    """

    def export_tasks(
        checkpoint: Path,
        rows: Path,
        metrics: dict[str, Any],
        baselines: dict[str, Any],
        export: ExportSettings,
        evaluation: EvaluationSettings,
    ) -> Callable[[Path], None]:
        from hyperformer.export.bundle import export as export_checkpoint

        return export_checkpoint(checkpoint, rows, metrics, baselines, export, evaluation, shared_base)

    return Node(
        func=export_tasks,
        inputs={
            "checkpoint": "checkpoint",
            "rows": "rows",
            "metrics": "metrics",
            "baselines": "baselines",
            "export": "params:export",
            "evaluation": "params:evaluation",
        },
        outputs=output,
        name=name,
    )


def create_pipeline() -> Pipeline:
    """Create the pipeline `export`."""
    return Pipeline([create_export_node("export_bundles", "bundles", shared_base=False)], tags="export")
