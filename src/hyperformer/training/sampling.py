"""Which rows a step trains on; pure functions of the seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hyperformer.data import generator

Integers: TypeAlias = NDArray[np.int64]

GROUPED_BATCHES = 16


class Permutations:
    """Row numbers 0..rows-1 in an endless sequence of shuffled passes; a pure function of (seed, stream, position)."""

    def __init__(self, rows: int, seed: int, *stream: int) -> None:
        self.rows, self._key = rows, (seed, *stream)

    def __getitem__(self, positions: Integers) -> Integers:
        """The row numbers at these positions."""
        passes, places = np.divmod(positions, self.rows)
        found = np.empty_like(places)
        for number in np.unique(passes).tolist():
            own = passes == number
            found[own] = generator(*self._key, number).permutation(self.rows)[places[own]]
        return found


def task_shares(rows: Mapping[str, int], weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Each task's share of the batches, proportional to weight · rows^(1/temperature) (HyperFormer, section 4)."""
    logarithms = np.array([math.log(weights[task]) + math.log(count) / temperature for task, count in rows.items()])
    shares = np.exp(logarithms - logarithms.max())  # a low temperature takes the powers beyond what a float holds
    return dict(zip(rows, (shares / shares.sum()).tolist(), strict=True))


class TaskSampler:
    """Which rows a step trains on: tasks by their shares, each task's rows in endless shuffled passes.

    Exactly one of `batch_size` and `batch_tokens` is given. A longer run begins with the rows of a shorter one.

    Args:
        lengths: source tokens of each task's training rows.
        shares: of each task, 1 together.
        steps: the last step that will be asked for, plus one.
        batch_size: rows in a batch.
        batch_tokens: rows are taken as they are drawn while they have so many source tokens together, but at least one.
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
        self._rows = [Permutations(len(one), seed, 1, task) for task, one in enumerate(lengths)]
        draw = generator(seed, "tasks")
        if batch_size is not None:
            self.tasks = self._drawn(draw, steps * batch_size)
            self.rows = self._numbered(self.tasks)
            self._starts = np.arange(steps + 1) * batch_size
        else:
            assert batch_tokens is not None
            self._fill(draw, steps, batch_tokens)

    def _drawn(self, draw: np.random.Generator, count: int) -> NDArray[np.int32]:
        return draw.choice(len(self.shares), size=count, p=self.shares).astype(np.int32)

    def _numbered(self, tasks: NDArray[np.int32]) -> Integers:
        """The row of each draw: a task's n-th draw is the n-th of its rows' passes."""
        rows = np.empty(len(tasks), dtype=np.int64)
        order = np.argsort(tasks, kind="stable")
        bounds = np.searchsorted(tasks[order], np.arange(len(self._rows) + 1))
        for task, (start, end) in enumerate(pairwise(bounds.tolist())):
            rows[order[start:end]] = self._rows[task][np.arange(end - start)]
        return rows

    def _fill(self, draw: np.random.Generator, steps: int, batch_tokens: int) -> None:
        """Draws until every step has its tokens."""
        tasks = np.empty(0, dtype=np.int32)
        while True:
            tasks = np.concatenate([tasks, self._drawn(draw, max(steps * 8, len(tasks)))])
            rows = self._numbered(tasks)
            sizes = np.empty(len(tasks), dtype=np.int64)
            for task, lengths in enumerate(self._lengths):
                own = tasks == task
                sizes[own] = lengths[rows[own]]
            before = np.concatenate([[0], np.cumsum(sizes)])  # tokens before a draw
            starts = [0]
            while len(starts) <= steps and before[-1] - before[starts[-1]] > batch_tokens:
                end = int(np.searchsorted(before, before[starts[-1]] + batch_tokens, side="right")) - 1
                starts.append(max(end, starts[-1] + 1))
            if len(starts) > steps:
                self.tasks, self.rows, self._starts = tasks[: starts[-1]], rows[: starts[-1]], np.array(starts)
                return

    def __getitem__(self, step: int) -> list[tuple[int, int]]:
        """(task, row) of each place of the step's batch."""
        own = slice(self._starts[step], self._starts[step + 1])
        return list(zip(self.tasks[own].tolist(), self.rows[own].tolist(), strict=True))


def length_grouped(lengths: Sequence[int], batch_size: int, seed: int) -> Integers:
    """Row numbers in an order whose batches hold rows of like length: less padding, and so less work.

    Rows move within stretches of `GROUPED_BATCHES` batches only, so that what comes early stays early; the batches of a
    stretch come in random order.
    """
    stretch = GROUPED_BATCHES * batch_size
    order = []
    for number, start in enumerate(range(0, len(lengths), stretch)):
        rows = start + np.argsort(lengths[start : start + stretch], kind="stable")
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        whole = len(rows) // batch_size  # a last batch with too few rows stays last
        order += [batches[i] for i in generator(seed, "lengths", number).permutation(whole)] + batches[whole:]
    return np.concatenate(order)
