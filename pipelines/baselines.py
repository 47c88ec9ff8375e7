"""The pipeline `baselines`: test scores of simple methods, on the rows that the model is tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import BackboneSettings, EvaluationSettings, Tasks


def score_baselines(
    rows: Path, tasks: Tasks, backbone: BackboneSettings, evaluation: EvaluationSettings, seed: int
) -> dict[str, Any]:
    """Fit simple methods to the train rows of each task, tune them on validation, and score them on test."""
    from hyperformer.baselines import evaluate_all_baselines
    from hyperformer.model.inference import make_embedder
    from hyperformer.tasks import make_tasks

    return evaluate_all_baselines(make_tasks(tasks), rows, make_embedder(backbone, evaluation.batch_size), seed)


def create_pipeline() -> Pipeline:
    """Create the pipeline `baselines`."""
    return Pipeline(
        [
            Node(
                func=score_baselines,
                inputs={
                    "rows": "rows",
                    "tasks": "params:tasks",
                    "backbone": "params:backbone",
                    "evaluation": "params:evaluation",
                    "seed": "params:seed",
                },
                outputs="baselines",
                name="score_baselines",
            ),
        ],
        tags="baselines",
    )
