"""The batches of a training loop, divided among micro-batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from hyperformer.model.tensors import ParameterGroup


@dataclass(frozen=True)
class TrainingRow:
    """A row of a batch: token ids by name, index of its task, and its index among the task's training rows."""

    tokens: dict[str, list[int]]
    task: int = 0
    number: int = 0


@dataclass(frozen=True)
class TrainingJob:
    """The model and the batches of a training loop.

    Attributes:
        model: its forward takes collated tensors and returns {"row_losses": [B]}.
        rows: returns the rows of a step's batch, a pure function of the step.
        collate: converts rows to the model's input tensors.
        tasks: names of the tasks; the `task` of a row is an index in it.
        groups: the parameters to train, by kind.
        count_passes: returns each task's number of passes over its rows in the first steps; None if nobody asks.
    """

    model: nn.Module
    rows: Callable[[int], list[TrainingRow]]
    collate: Callable[[Sequence[TrainingRow]], dict[str, Tensor]]
    tasks: Sequence[str]
    groups: Sequence[ParameterGroup]
    count_passes: Callable[[int], dict[str, float]] | None = None


@dataclass(frozen=True)
class _MicroBatch:
    """Rows of a step's batch that are computed at once, and a weight for their mean loss.

    The loss of the batch is the average of the weighted mean losses over all micro-batches and ranks.
    """

    rows: list[TrainingRow]
    weight: float


class MicroBatches(Dataset[dict[str, Any]]):
    """One rank's rows of `steps` batches from step `first` on, in `count` micro-batches per batch.

    Item i belongs to step first + i // count. A rank has every `ranks`-th row of a batch, starting at the index `rank`.
    Each micro-batch has rows of similar length.
    """

    def __init__(self, job: TrainingJob, first: int, steps: int, count: int = 1, rank: int = 0, ranks: int = 1) -> None:
        self._job, self._first, self._steps, self._count = job, first, steps, count
        self._rank, self._ranks = rank, ranks

    def __len__(self) -> int:
        return self._steps * self._count

    def micro_batch(self, index: int) -> _MicroBatch:
        """Return the rows and the weight of an item, without its tensors."""
        step, number = divmod(index, self._count)
        batch = self._job.rows(self._first + step)
        rows = batch[self._rank :: self._ranks]
        if self._count > 1:
            rows = sorted(rows, key=lambda row: len(row.tokens["input_ids"]))
            bounds = [len(rows) * i // self._count for i in range(self._count + 1)]
            rows = rows[bounds[number] : bounds[number + 1]]
        # the trainer averages over micro-batches and ranks
        return _MicroBatch(rows, len(rows) * self._count * self._ranks / len(batch))

    def __getitem__(self, index: int) -> dict[str, Any]:
        micro_batch = self.micro_batch(index)
        return {"tensors": self._job.collate(micro_batch.rows), "micro_batch": micro_batch}
