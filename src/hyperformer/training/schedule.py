"""The schedule of a training: the steps that its settings and its numbers of rows result in."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from hyperformer.settings.base import Positive
from hyperformer.settings.training import LoopSettings, TrainingSettings

VALIDATIONS = 10  # number of validations of a run that sets neither epochs nor evaluate_every


class ScheduledSettings(TrainingSettings, LoopSettings):
    """Settings of the training of one model, with its schedule in steps."""

    steps: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    evaluate_every: Positive


def count_steps(training: TrainingSettings, size: int) -> int:
    """Return the number of steps of a run.

    Args:
        training: the settings; the run has `steps` steps, or `epochs` times as many as one epoch.
        size: number of training rows of all tasks or, with `batch_tokens`, number of their source tokens.
    """
    if training.epochs is None:
        assert training.steps is not None  # checked by the settings
        return training.steps
    batch = training.batch_size or training.batch_tokens
    assert batch is not None  # checked by the settings
    return math.ceil(training.epochs * size / batch)


def schedule_training(training: TrainingSettings, size: int, share: float = 1.0) -> ScheduledSettings:
    """Return the settings with the schedule of a model in steps.

    Args:
        training: the settings of the run.
        size: number of training rows of all tasks or, with `batch_tokens`, number of their source tokens.
        share: the model's share of the steps; less than 1 in methods that train several models.
    """
    steps = max(1, round(share * count_steps(training, size)))
    if training.warmup_ratio is not None:
        warmup_steps = round(training.warmup_ratio * steps)
    else:
        warmup_steps = round(share * (training.warmup_steps or 0))
    if training.evaluate_every is not None:
        evaluate_every = max(1, round(share * training.evaluate_every))
    else:
        evaluate_every = math.ceil(steps / (training.epochs or VALIDATIONS))
    schedule = {"steps": steps, "warmup_steps": warmup_steps, "evaluate_every": evaluate_every}
    return ScheduledSettings(**{**training.model_dump(), "epochs": None, "warmup_ratio": None, **schedule})
