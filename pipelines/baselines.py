"""`baselines`: what simple methods reach on the same test rows."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.config import Tasks


def score_baselines(rows: Path, tasks: Tasks, seed: int):
    from hyperformer.evaluation import baselines_all
    from hyperformer.tasks import make

    return baselines_all(make(tasks), rows, seed)


def create_pipeline() -> Pipeline:
    return Pipeline(
        [node(score_baselines, ["rows", "params:tasks", "params:seed"], "baselines", name="baselines")],
        tags="baselines",
    )
