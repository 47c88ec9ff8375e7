"""The tokens of a batch, one row after another and without padding, and the attention between them.

All layers but attention work on the packed tokens [N, d]. For attention, the rows are divided into groups of similar
length, and each group is padded to its longest row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32
"""Number of tokens of one task that adapters process together."""
GROUP_RATIO = 0.75
"""The rows of a group have at least this share of the tokens of its longest row."""


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

    @property
    def size(self) -> int:
        """The number of padded tokens, b · L."""
        return self.rows * self.length


@dataclass(frozen=True)
class Chunks:
    """Packed tokens in chunks of `CHUNK` tokens of one task each, the last chunk of a task with padding.

    Attributes:
        tasks: the task of each chunk, [c].
        tokens: the token at each place of the chunks, 0 for padding, [c · CHUNK].
        inverse: the place of each token, [N].
    """

    tasks: Tensor
    tokens: Tensor
    inverse: Tensor

    def select(self, weights: Tensor) -> Tensor:
        """Return the weights [n, …] of each chunk's task, [c, …]."""
        # the gradient of a matrix product is much faster than that of an index
        one_hot = F.one_hot(self.tasks, len(weights)).to(weights.dtype)
        return (one_hot @ weights.flatten(1)).unflatten(1, weights.shape[1:])

    def pad(self, x: Tensor) -> Tensor:
        """Return the values x [N, d] in chunks, [c, CHUNK, d]; padding has arbitrary values."""
        return _pad(x, self.tokens, self.inverse).unflatten(0, (-1, CHUNK))

    def unpad(self, chunks: Tensor) -> Tensor:
        """Return the values of the tokens [N, d] from chunks [c, CHUNK, d]."""
        return _unpad(chunks.flatten(0, 1), self.inverse)


class Packing:
    """The places of a batch's tokens, ordered by the rows' tasks and, within a task, by the rows' lengths.

    Args:
        mask: whether a token is not padding, [B, L]; the padding of a row is at its end.
        tasks: index of each row's task, [B]; None if all rows are of the same task.
        like: a packing of the same rows with other lengths, whose order and groups are taken; None for a new one.

    Attributes:
        order: the row at each place, [B].
        lengths: the number of tokens of the row at each place, [B].
        counts: the number of tokens of each task.
    """

    def __init__(self, mask: Tensor, tasks: Tensor | None = None, like: Packing | None = None) -> None:
        self.device, self._width = mask.device, mask.shape[1]
        lengths = mask.sum(1).cpu().numpy()
        if like is None:
            ids = np.zeros(len(lengths), dtype=np.int64) if tasks is None else tasks.cpu().numpy()
            self.order = np.lexsort((lengths, ids))
            self._task_ends = np.cumsum(np.bincount(ids))
            self._groups = _divide(lengths[self.order], self.device.type == "cpu")
        else:
            self.order, self._task_ends, self._groups = like.order, like._task_ends, like._groups
        self.lengths = lengths[self.order]
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        self._starts = ends[:-1]
        self.counts: list[int] = np.diff(ends[self._task_ends], prepend=0).tolist()
        self.rows = np.repeat(np.arange(len(lengths)), self.lengths)  # the place of each token's row, [N]
        self.columns = np.arange(ends[-1]) - self._starts[self.rows]  # [N]

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each token in its row, [N]."""
        return self._tensor(self.columns)

    @cached_property
    def batch_rows(self) -> Tensor:
        """The index in the batch of each token's row, [N]."""
        return self._tensor(self.order[self.rows])

    def pack(self, values: Tensor) -> Tensor:
        """Return the values [B, L, …] of the tokens, [N, …]."""
        return values.flatten(0, 1).index_select(0, self._tensor(self.order[self.rows] * self._width + self.columns))

    def unpack(self, values: Tensor) -> Tensor:
        """Return the values of the tokens [N, …] as rows with padding of zeros, [B, L, …]."""
        index = self._tensor(self.order[self.rows] * self._width + self.columns)
        rows = values.new_zeros(len(self.order) * self._width, *values.shape[1:]).index_copy(0, index, values)
        return rows.unflatten(0, (len(self.order), self._width))

    def mean(self, hidden: Tensor) -> Tensor:
        """Average hidden states [N, d] over the tokens of each row, in float32, [B, d]."""
        sums = torch.zeros(len(self.order), hidden.shape[1], device=self.device).index_add(
            0, self.batch_rows, hidden.float()
        )
        lengths = np.empty_like(self.lengths)
        lengths[self.order] = self.lengths
        return sums / self._tensor(lengths).unsqueeze(1)

    @cached_property
    def chunks(self) -> Chunks | None:
        """The tokens in chunks of one task each; None if all rows are of one task."""
        if len(self.counts) == 1:
            return None
        counts = np.array(self.counts)
        chunks = -(-counts // CHUNK)  # of each task
        firsts = (np.cumsum(chunks) - chunks) * CHUNK  # the padded place of each task's first token
        starts = np.cumsum(counts) - counts
        inverse = np.arange(len(self.rows)) + np.repeat(firsts - starts, counts)
        tokens = np.zeros(chunks.sum() * CHUNK, dtype=np.int64)
        tokens[inverse] = np.arange(len(inverse))
        return Chunks(*map(self._tensor, (np.repeat(np.arange(len(counts)), chunks), tokens, inverse)))

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of rows, by increasing length."""
        groups = []
        for places in self._groups:
            lengths = self.lengths[places]
            longest = int(lengths.max())
            mask = None
            if lengths.min() < longest:
                mask = self._tensor(np.arange(longest) < lengths[:, None])
            groups.append(Group(len(places), longest, mask))
        return groups

    @cached_property
    def _indices(self) -> tuple[Tensor, Tensor]:
        """For each place of the padded groups, its token (0 for padding), [P]; and each token's place there, [N]."""
        offsets = np.empty(len(self.order), dtype=np.int64)  # of each row in the padded groups
        start = 0
        for places, group in zip(self._groups, self.groups, strict=True):
            offsets[places] = start + np.arange(group.rows) * group.length
            start += group.size
        inverse = offsets[self.rows] + self.columns
        tokens = np.zeros(start, dtype=np.int64)
        tokens[inverse] = np.arange(len(inverse))
        return self._tensor(tokens), self._tensor(inverse)

    def pad(self, x: Tensor) -> list[Tensor]:
        """Return the values x [N, …] in each group, [b, L, …]; padding has arbitrary values."""
        tokens, inverse = self._indices
        parts = _pad(x, tokens, inverse).split([group.size for group in self.groups])
        shapes = [(group.rows, group.length) for group in self.groups]
        return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]

    def unpad(self, groups: list[Tensor]) -> Tensor:
        """Return the values of the tokens [N, …] from those of each group, [b, L, …]."""
        return _unpad(torch.cat([group.flatten(0, 1) for group in groups]), self._indices[1])


def _divide(lengths: Any, split: bool) -> list[Any]:
    """Return the groups of rows as arrays of their indices in `lengths`; a single group if `split` is false."""
    order = np.argsort(lengths, kind="stable")
    if not split:
        return [order]
    bounds = [len(order)]
    longest = lengths[order[-1]]
    for place in range(len(order) - 1, -1, -1):
        if lengths[order[place]] < GROUP_RATIO * longest:
            bounds.append(place + 1)
            longest = lengths[order[place]]
    bounds.append(0)
    return [order[start:end] for end, start in pairwise(bounds)][::-1]


class _Pad(torch.autograd.Function):
    """x[tokens], where the place of token i is inverse[i]; gradients of other places are ignored."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradients[0].index_select(0, inverse), None, None


class _Unpad(torch.autograd.Function):
    """x[inverse], without duplicates; the gradients of other places are 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.places = len(x)
        return x.index_select(0, inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors
        gradient = gradients[0]
        padded = gradient.new_zeros(ctx.places, *gradient.shape[1:])
        return padded.index_copy_(0, inverse, gradient), None


def _pad(x: Tensor, tokens: Tensor, inverse: Tensor) -> Tensor:
    padded: Tensor = _Pad.apply(x, tokens, inverse)  # type: ignore[no-untyped-call]
    return padded


def _unpad(x: Tensor, inverse: Tensor) -> Tensor:
    unpadded: Tensor = _Unpad.apply(x, inverse)  # type: ignore[no-untyped-call]
    return unpadded
