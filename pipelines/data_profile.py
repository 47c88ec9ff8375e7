"""`data_profile`: what the rows of every task hold, as the model will read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from hyperformer.config import BackboneSettings, Tasks


def profile_rows(rows: Path, tasks: Tasks, backbone: BackboneSettings, split_counts: dict[str, Any]):
    from hyperformer.data_profile import profile

    return profile(rows, tasks, backbone, split_counts)


def create_pipeline() -> Pipeline:
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
