"""Settings of few-shot transfer."""

from __future__ import annotations

from typing import Literal

from hyperformer.settings.base import Positive
from hyperformer.settings.training import LoopSettings


class TransferSettings(LoopSettings):
    """Settings of few-shot transfer, which adapts a trained model to new tasks without validation rows."""

    checkpoint: str
    """Trained model: a local folder, or the name of a model on the Hugging Face Hub."""
    backbone: str | None = None
    """Location of the model's backbone; null: the location that is stored in the checkpoint."""
    samples: Positive | None = None
    """Training rows per task, sampled with the seed; null: all rows."""
    initialize_from: Literal["nearest", "mean", "random"] = "nearest"
    """Initial task-specific weights of a new task (its embedding; for Adapters†, its adapters). `nearest`: the weights
    of the trained task with the lowest loss on the new task's rows, or `mean` if that loss is not lower than that of
    guessing; `mean`: the mean of all trained tasks' weights and, if the method adds generated weights to a shared
    adapter, no such addition; `random`: new random weights.
    """
    train: Literal["all", "task_specific"] = "all"
    """Weights to train: all that the method trains, or only the task-specific ones."""
    batch_size: Positive
    """Rows per batch."""
