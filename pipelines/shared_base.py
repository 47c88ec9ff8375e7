"""The pipeline `shared_base`: one shared ONNX graph, and a small verified adapter file for each task."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from pipelines.export import create_export_node


def create_pipeline() -> Pipeline:
    """Create the pipeline `shared_base`."""
    return Pipeline([create_export_node("export_shared_base", "shared_base", shared_base=True)], tags="shared_base")
