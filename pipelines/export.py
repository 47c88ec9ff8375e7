"""`export`: a checked bundle for each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.config import EvaluationSettings, ExportSettings


def export_bundles(
    checkpoint: Path, rows: Path, metrics: dict[str, Any], export: ExportSettings, evaluation: EvaluationSettings
):
    from hyperformer.export.bundle import export as bundles

    return bundles(checkpoint, rows, metrics, export, evaluation)


def create_pipeline() -> Pipeline:
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
