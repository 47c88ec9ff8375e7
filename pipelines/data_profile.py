"""The pipeline `data_profile`: statistics of the rows of every task, as the model will read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.settings import BackboneSettings, Tasks


def profile_rows(rows: Path, tasks: Tasks, backbone: BackboneSettings, split_counts: dict[str, Any]):
    """Compute statistics of the rows of each task."""
    from hyperformer.data.profile import profile_rows

    return profile_rows(rows, tasks, backbone, split_counts)


def create_pipeline() -> Pipeline:
    """Create the pipeline `data_profile`."""
    return Pipeline(
        [
            node(
                profile_rows,
                ["rows", "params:tasks", "params:backbone", "split_counts"],
                "data_profile",
                name="data_profile",
            )
        ],
        tags="data_profile",
    )
