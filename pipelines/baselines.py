"""The pipeline `baselines`: scores of simple methods on the rows that the model is validated and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import BackboneSettings, EvaluationSettings, Tasks


def score_baselines(
    rows: Path,
    tasks: Tasks,
    backbone: BackboneSettings,
    evaluation: EvaluationSettings,
    seed: int,
    resume_states: Path,
    **after: Any,
) -> dict[str, Any]:
    """Fit simple methods to the train rows of each task, tune them on validation, and score them on both and test."""
    from hyperformer.baselines import evaluate_cached_baselines
    from hyperformer.tasks import make_tasks

    folder = resume_states / "baselines"
    return evaluate_cached_baselines(make_tasks(tasks), rows, backbone, evaluation.batch_size, seed, folder)


def create_pipeline(after: Sequence[str] = ()) -> Pipeline:
    """Create the pipeline `baselines`.

    Args:
        after: Datasets that must be saved before the baselines are computed, although these do not use them.
    """
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
                    "resume_states": "resume_states",
                    **{name: name for name in after},
                },
                outputs="baselines",
                name="score_baselines",
            ),
        ],
        tags="baselines",
    )
