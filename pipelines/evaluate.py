"""The pipeline `evaluate`: metrics and predictions of the trained model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import EvaluationSettings


def evaluate_model(
    checkpoint: Path, rows: Path, evaluation: EvaluationSettings
) -> tuple[dict[str, Any], Callable[[Path], None]]:
    """Compute metrics and predictions of a checkpoint."""
    from hyperformer.evaluation import evaluate_all
    from hyperformer.model.inference import move_to_gpu
    from hyperformer.model.task_models import TaskModels

    model = move_to_gpu(TaskModels.from_pretrained(checkpoint))
    return evaluate_all(partial(model.answer, settings=evaluation), model.tasks, rows)


def create_pipeline() -> Pipeline:
    """Create the pipeline `evaluate`."""
    return Pipeline(
        [
            Node(
                func=evaluate_model,
                inputs={
                    "checkpoint": "checkpoint",
                    "rows": "rows",
                    "evaluation": "params:evaluation",
                },
                outputs=["metrics", "predictions"],
                name="evaluate_model",
            ),
        ],
        tags="evaluate",
    )
