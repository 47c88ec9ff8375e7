"""`shared_base`: one graph for all tasks, and a small checked file for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.config import EvaluationSettings, ExportSettings


def export_shared_base(
    checkpoint: Path, rows: Path, metrics: dict[str, Any], export: ExportSettings, evaluation: EvaluationSettings
):
    from hyperformer.export.bundle import export_shared_base as shared

    return shared(checkpoint, rows, metrics, export, evaluation)


def create_pipeline() -> Pipeline:
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
