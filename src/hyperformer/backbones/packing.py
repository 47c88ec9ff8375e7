"""The tokens of a batch, one row after another and without padding, and the attention between them.

All layers but attention work on the packed tokens [N, d]. For attention, the rows are divided into groups of similar
length, and each group is padded to its longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MIN_CHUNK = 32
"""Minimum number of tokens of one task that adapters process together."""
CHUNKS = 4
"""Mean number of such chunks per task in large batches; more chunks need less padding and more memory for weights."""
GROUP_RATIO = 0.75
"""The rows of a group have at least this share of the tokens of its longest row; for the decoder, of its source."""
GROUP_SIZE = 1 << 18
"""Maximum of b · L² of a group with several rows: the attention weights of one head, which inference keeps in memory
for one group at a time. For the decoder, L is the length of the source."""


class Places:
    """The places of N tokens among `count` places, of which the others are padding.

    Attributes:
        index: the place of each token, [N].
        count: the number of places.
    """

    def __init__(self, index: Tensor, count: int) -> None:
        self.index, self.count = index, count

    def pad(self, x: Tensor) -> Tensor:
        """Return the values x [N, …] at their places, [count, …]; padding is 0."""
        padded: Tensor = _Pad.apply(x, self.index, self.count)  # type: ignore[no-untyped-call]
        return padded

    def unpad(self, x: Tensor) -> Tensor:
        """Return the values of the tokens [N, …] from those at all places, [count, …]."""
        unpadded: Tensor = _Unpad.apply(x, self.index)  # type: ignore[no-untyped-call]
        return unpadded


def _spread(x: Tensor, index: Tensor, count: int) -> Tensor:
    return x.new_zeros(count, *x.shape[1:]).index_copy_(0, index, x)


class _Pad(torch.autograd.Function):
    """The values x at the places `index`, and 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(index)
        return _spread(x, index, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradients[0].index_select(0, index), None, None


class _Unpad(torch.autograd.Function):
    """x[index] for an index without duplicates, whose gradient is faster than that of `index_select`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _spread(gradients[0], index, ctx.count), None


class _Select(torch.autograd.Function):
    """weights[index] for an index with many duplicates, whose gradient is faster than that of `index_select`."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(weights)
        return weights.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        (gradient,) = gradients
        one_hot = F.one_hot(index, ctx.count).to(gradient.dtype)
        return (one_hot.T @ gradient.flatten(1)).unflatten(1, gradient.shape[1:]), None


@dataclass(frozen=True)
class Group:
    """Rows that are padded to the same length for attention.

    Attributes:
        rows: number b of rows.
        length: number L of tokens of the longest row.
        mask: whether a token is not padding, [b, L]; None if all rows have the same length.
    """

    rows: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True)
class Chunks:
    """The tokens of several tasks in chunks of T tokens of one task; the last chunk of a task has padding.

    Attributes:
        tasks: the task of each chunk, [c].
        places: the places of the tokens in the chunks.
    """

    tasks: Tensor
    places: Places

    def select(self, weights: Tensor) -> Tensor:
        """Return the weights [n, …] of each chunk's task, [c, …]."""
        selected: Tensor = _Select.apply(weights, self.tasks)  # type: ignore[no-untyped-call]
        return selected

    def pad(self, x: Tensor) -> Tensor:
        """Return the values x [N, d] in chunks, [c, T, d]; padding is 0."""
        return self.places.pad(x).unflatten(0, (len(self.tasks), -1))

    def unpad(self, chunks: Tensor) -> Tensor:
        """Return the values of the tokens [N, d] from chunks [c, T, d]."""
        return self.places.unpad(chunks.flatten(0, 1))


class Packing:
    """The tokens of a batch, ordered by the tasks of their rows and, within a task, by the lengths of the rows.

    Args:
        mask: whether a token is not padding, [B, L]; the padding of a row is at its end.
        tasks: index of each row's task, [B]; None if all rows are of the same task.
        like: the packing of other tokens of the same rows, whose order and groups of rows are used; None: the order and
            the groups follow from the lengths.

    Attributes:
        lengths: the number of tokens of each row, in the order of the packing, [B].
        groups: the groups of rows of similar length.
        device: the device of the tokens.
    """

    def __init__(self, mask: Tensor, tasks: Tensor | None = None, like: Packing | None = None) -> None:
        self.device = mask.device
        self._shape = mask.shape
        lengths: NDArray[np.int64] = mask.sum(1).cpu().numpy()
        if like is None:
            ids = None if tasks is None else tasks.cpu().numpy()
            self._order = np.argsort(lengths, kind="stable") if ids is None else np.lexsort((lengths, ids))
            self._tasks = None if ids is None else ids[self._order]
            self._members = _divide(lengths[self._order], whole=self.device.type != "cpu")
        else:
            self._order, self._tasks, self._members = like._order, like._tasks, like._members
        self.lengths = lengths[self._order]
        self._rows = np.repeat(np.arange(len(lengths)), self.lengths)  # each token's row, in the order of the packing
        firsts = np.cumsum(self.lengths) - self.lengths
        self._columns = np.arange(len(self._rows)) - firsts[self._rows]  # each token's position in its row
        self.groups = [self._make_group(self.lengths[members]) for members in self._members]

    def __len__(self) -> int:
        """Return the number N of tokens."""
        return len(self._rows)

    def _make_group(self, lengths: NDArray[np.int64]) -> Group:
        longest = int(lengths.max())
        mask = self._tensor(np.arange(longest) < lengths[:, None]) if lengths.min() < longest else None
        return Group(len(lengths), longest, mask)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each token in its row, [N]."""
        return self._tensor(self._columns)

    @cached_property
    def _indices(self) -> Tensor:
        """The index of each token in the flattened batch, [N]."""
        return self._tensor(self._order[self._rows] * self._shape[1] + self._columns)

    def pack(self, values: Tensor) -> Tensor:
        """Return the values of the tokens [N, …] from those of padded rows, [B, L, …]."""
        return values.flatten(0, 1).index_select(0, self._indices)

    def unpack(self, values: Tensor) -> Tensor:
        """Return the values of the tokens [N, …] in padded rows, [B, L, …]; padding is 0."""
        return Places(self._indices, self._shape.numel()).pad(values).unflatten(0, self._shape)

    def mean(self, values: Tensor) -> Tensor:
        """Average the values of the tokens [N, …] over each row of the batch, in float32, [B, …]."""
        lengths = self._tensor(self.lengths[np.argsort(self._order)])
        return self.unpack(values.float()).sum(1) / lengths.view(-1, *[1] * (values.dim() - 1))

    @cached_property
    def chunks(self) -> Chunks | None:
        """The tokens in chunks of one task each; None if all rows are of one task."""
        if self._tasks is None:
            return None
        counts = np.bincount(self._tasks, weights=self.lengths).astype(np.int64)  # tokens of each task
        size = max(MIN_CHUNK, len(self) // (CHUNKS * int(np.count_nonzero(counts))))
        chunks = -(-counts // size)
        padding = np.cumsum(chunks * size - counts) - (chunks * size - counts)  # before the first token of each task
        index = self._tensor(np.arange(len(self)) + np.repeat(padding, counts))
        tasks = self._tensor(np.repeat(np.arange(len(counts)), chunks))
        return Chunks(tasks, Places(index, len(tasks) * size))

    @cached_property
    def _places(self) -> Places:
        """The places of the tokens in the padded groups."""
        starts = np.empty(len(self._order), dtype=np.int64)  # the place of each row's first token
        count = 0
        for members, group in zip(self._members, self.groups, strict=True):
            starts[members] = count + np.arange(group.rows) * group.length
            count += group.rows * group.length
        return Places(self._tensor(starts[self._rows] + self._columns), count)

    def pad(self, x: Tensor) -> list[Tensor]:
        """Return the values x [N, …] of each group, [b, L, …]; padding is 0."""
        shapes = [(group.rows, group.length) for group in self.groups]
        parts = self._places.pad(x).split([rows * length for rows, length in shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]

    def unpad(self, groups: Sequence[Tensor]) -> Tensor:
        """Return the values of the tokens [N, …] from those of each group, [b, L, …]."""
        return self._places.unpad(torch.cat([group.flatten(0, 1) for group in groups]))


def _divide(lengths: NDArray[np.int64], whole: bool) -> list[NDArray[np.int64]]:
    """Return groups of similar lengths, as their indices in `lengths`; a single group if `whole`."""
    order = np.argsort(lengths, kind="stable")
    if whole:
        return [order]
    ends = [len(order)]
    for end in range(len(order) - 1, 0, -1):
        longest = lengths[order[ends[-1] - 1]]
        is_shorter = lengths[order[end - 1]] < GROUP_RATIO * longest
        if is_shorter or (ends[-1] - end + 1) * longest**2 > GROUP_SIZE:
            ends.append(end)
    return [order[start:end] for end, start in pairwise([*ends, 0])][::-1]
