"""Training jobs: the batches of rows of several tasks that a model is trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
import torch
from torch import Tensor

from hyperformer.core.errors import HyperFormerError
from hyperformer.data.storage import Rows
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.training.batches import TrainingJob, TrainingRow
from hyperformer.training.sampling import TaskSampler
from hyperformer.training.schedule import ScheduledSettings

log = logging.getLogger(__name__)


def build_mixture_job(
    model: MultiTaskModel, mixture: Mapping[str, tuple[Rows, float]], settings: ScheduledSettings, seed: int
) -> TrainingJob:
    """Return the training job of a model, whose batches have rows of all tasks in `mixture`.

    A batch is a pure function of (seed, step).

    Args:
        model: the model to train.
        mixture: each task's encoded training rows, and the task's share of the rows in batches.
        settings: training settings, of which the steps and the batch size are used.
        seed: seed of the batches.

    Raises:
        HyperFormerError: if a token id is not in the backbone's vocabulary.
    """
    tokens = {name: rows for name, (rows, _) in mixture.items()}
    for name, rows in tokens.items():
        _check_ids(name, rows, model.backbone.vocab_size)
    shares = [share for _, share in mixture.values()]
    sampler = TaskSampler(
        source_lengths(tokens), shares, seed, settings.steps, settings.batch_size, settings.batch_tokens
    )
    listed = ", ".join(f"{name} {share:.0%}" for name, share in zip(mixture, shares, strict=True))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info("training %d parameters on %d tasks (%s)", trained, len(mixture), listed)
    job = build_job(model, tokens, sampler)
    log_passes(job, settings.steps, {name: len(rows) for name, rows in tokens.items()})
    return job


def log_passes(job: TrainingJob, steps: int, rows: Mapping[str, int]) -> None:
    """Log the number of passes of each task in a run of `steps` steps, given its number of training rows."""
    for name, passes in count_passes(job, steps).items():
        log.info("%s: %.1f passes over %s rows", name, passes, f"{rows[name]:,}")


def count_passes(job: TrainingJob, steps: int) -> dict[str, float]:
    """Return each task's number of passes over its training rows in the first `steps` steps of a job."""
    assert job.count_passes is not None  # `build_job` sets it
    return job.count_passes(steps)


def _check_ids(task: str, tokens: Rows, vocabulary: int) -> None:
    """Check that all token ids are in the vocabulary.

    Raises:
        HyperFormerError: if a token id is not in the vocabulary.
    """
    for column in tokens.column_names:
        ends = pc.min_max(pc.list_flatten(tokens.data.column(column))).as_py()
        if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < vocabulary:
            invalid = ends["min"] if ends["min"] < 0 else ends["max"]
            raise HyperFormerError(
                f"task {task!r}: the training rows have the token id {invalid} in {column!r}; expected ids from 0 to "
                f"{vocabulary - 1}, the backbone's vocabulary. Encode the rows again with the backbone's tokenizer."
            )


def source_lengths(tokens: Mapping[str, Rows]) -> list[Any]:
    """Return, for each task, the number of source tokens of each of its encoded rows."""
    return [pc.list_value_length(rows.data.column("input_ids")).to_numpy() for rows in tokens.values()]


def build_job(model: MultiTaskModel, tokens: Mapping[str, Rows], sampler: TaskSampler) -> TrainingJob:
    """Return the training job of a model on the batches that a sampler draws from the tasks' encoded rows."""
    datasets = list(tokens.values())

    def rows(step: int) -> list[TrainingRow]:
        return [TrainingRow(datasets[task][row], task, row) for task, row in sampler[step]]

    def collate(rows: Sequence[TrainingRow]) -> dict[str, Tensor]:
        tensors = model.backbone.collate([row.tokens for row in rows])
        return {"task_ids": torch.tensor([row.task for row in rows]), **tensors}

    def count_passes(steps: int) -> dict[str, float]:
        return dict(zip(tokens, sampler.count_passes(steps), strict=True))

    return TrainingJob(model, rows, collate, list(tokens), model.parameter_groups(), count_passes)
