"""Selection of the training rows of each step, as a pure function of the seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hyperformer.core.rng import make_rng

Integers: TypeAlias = NDArray[np.int64]

GROUPED_BATCHES = 16  # number of batches in a window within which rows are grouped by length


class Permutations:
    """Row numbers 0..rows-1 in an endless sequence of shuffled passes; a pure function of (seed, stream, position)."""

    def __init__(self, rows: int, seed: int, *stream: int) -> None:
        self.rows, self._key = rows, (seed, *stream)

    def __getitem__(self, positions: Integers) -> Integers:
        """Return the row numbers at these positions."""
        passes, offsets = np.divmod(positions, self.rows)
        numbers = np.empty_like(offsets)
        for number in np.unique(passes).tolist():
            mask = passes == number
            numbers[mask] = make_rng(*self._key, number).permutation(self.rows)[offsets[mask]]
        return numbers


def compute_task_shares(rows: Mapping[str, int], weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Return each task's share of the drawn rows, proportional to weight · rows^(1/temperature).

    This is temperature-based sampling (HyperFormer, section 4).
    """
    logarithms = np.array([math.log(weights[task]) + math.log(count) / temperature for task, count in rows.items()])
    shares = np.exp(logarithms - logarithms.max())  # a low temperature would overflow the powers
    return dict(zip(rows, (shares / shares.sum()).tolist(), strict=True))


def raise_shares(shares: Mapping[str, float], minimums: Mapping[str, float]) -> dict[str, float]:
    """Raise the shares of tasks to their minimums, and reduce the shares of all other tasks in proportion.

    Args:
        shares: each task's share; they sum to 1.
        minimums: each task's minimum share; at most an equal share, so that they sum to at most 1.

    Returns:
        The shares, which sum to 1; unchanged if none is below its minimum.
    """
    raised: set[str] = set()
    factor = 1.0
    while low := {task for task in shares if task not in raised and shares[task] * factor < minimums[task]}:
        raised |= low
        others = sum(share for task, share in shares.items() if task not in raised)
        factor = (1.0 - sum(minimums[task] for task in raised)) / others if others else 0.0
    return {task: minimums[task] if task in raised else share * factor for task, share in shares.items()}


class TaskSampler:
    """Draws the rows of each step: first a task in proportion to `shares`, then the next row of that task.

    The rows of a task come in endless shuffled passes. Exactly one of `batch_size` and `batch_tokens` must be set. A
    run with more steps begins with the same rows as a run with fewer steps.

    Args:
        lengths: for each task, the number of source tokens of each training row.
        shares: each task's share of the draws; they sum to 1.
        seed: seed of all draws.
        steps: number of steps.
        batch_size: rows in a batch.
        batch_tokens: maximum number of source tokens in a batch; a longer row is a batch of its own.
    """

    def __init__(
        self,
        lengths: Sequence[NDArray[Any]],
        shares: Sequence[float],
        seed: int,
        steps: int,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.shares, self._lengths = np.array(shares), lengths
        self._rows = [Permutations(len(task_lengths), seed, 1, task) for task, task_lengths in enumerate(lengths)]
        rng = make_rng(seed, "tasks")
        if batch_size is not None:
            self.tasks = self._draw_tasks(rng, steps * batch_size)
            self.rows = self._assign_rows(self.tasks)
            self._starts = np.arange(steps + 1) * batch_size
        else:
            assert batch_tokens is not None
            self._fill(rng, steps, batch_tokens)

    def _draw_tasks(self, rng: np.random.Generator, count: int) -> NDArray[np.int32]:
        return rng.choice(len(self.shares), size=count, p=self.shares).astype(np.int32)

    def _assign_rows(self, tasks: NDArray[np.int32]) -> Integers:
        """Return the row of each draw; the n-th draw of a task is the n-th row of its shuffled passes."""
        rows = np.empty(len(tasks), dtype=np.int64)
        order = np.argsort(tasks, kind="stable")
        bounds = np.searchsorted(tasks[order], np.arange(len(self._rows) + 1))
        for task, (start, end) in enumerate(pairwise(bounds.tolist())):
            rows[order[start:end]] = self._rows[task][np.arange(end - start)]
        return rows

    def _fill(self, rng: np.random.Generator, steps: int, batch_tokens: int) -> None:
        """Draw tasks until there are enough rows for the batches of all steps."""
        tasks = np.empty(0, dtype=np.int32)
        while True:
            tasks = np.concatenate([tasks, self._draw_tasks(rng, max(steps * 8, len(tasks)))])
            rows = self._assign_rows(tasks)
            sizes = np.empty(len(tasks), dtype=np.int64)
            for task, lengths in enumerate(self._lengths):
                mask = tasks == task
                sizes[mask] = lengths[rows[mask]]
            before = np.concatenate([[0], np.cumsum(sizes)])  # tokens before a draw
            starts = [0]
            while len(starts) <= steps and before[-1] - before[starts[-1]] > batch_tokens:
                end = int(np.searchsorted(before, before[starts[-1]] + batch_tokens, side="right")) - 1
                starts.append(max(end, starts[-1] + 1))
            if len(starts) > steps:
                self.tasks, self.rows, self._starts = tasks[: starts[-1]], rows[: starts[-1]], np.array(starts)
                return

    def __getitem__(self, step: int) -> list[tuple[int, int]]:
        """Return the (task, row) pairs of a step's batch."""
        batch = slice(self._starts[step], self._starts[step + 1])
        return list(zip(self.tasks[batch].tolist(), self.rows[batch].tolist(), strict=True))

    def count_passes(self, steps: int) -> list[float]:
        """Return, for each task, the number of passes over its rows in the first `steps` steps."""
        draws = np.bincount(self.tasks[: self._starts[steps]], minlength=len(self._lengths))
        return [count / len(lengths) for count, lengths in zip(draws.tolist(), self._lengths, strict=True)]


def group_by_length(lengths: Sequence[int], batch_size: int, seed: int) -> Integers:
    """Return the row numbers, ordered so that each batch has rows of similar length; this saves padding.

    Rows move only within windows of `GROUPED_BATCHES` batches, so that early rows stay early; the batches of a window
    are shuffled.

    Args:
        lengths: number of tokens of each row.
        batch_size: rows in a batch.
        seed: seed of the order of batches.

    Returns:
        The row numbers [rows].
    """
    window = GROUPED_BATCHES * batch_size
    order = []
    for number, start in enumerate(range(0, len(lengths), window)):
        rows = start + np.argsort(lengths[start : start + window], kind="stable")
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        full = len(rows) // batch_size  # an incomplete batch stays last
        order += [batches[i] for i in make_rng(seed, "lengths", number).permutation(full)] + batches[full:]
    return np.concatenate(order)
