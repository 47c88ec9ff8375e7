"""Heads: how a backbone without a decoder reads a task's answers off one vector a row.

A head has a row of weights for each answer of a classification task. A graded task has a single row, whose product p
stands for a number: an answer scores by its distance to it, -(p - u)² / 2s² with u its number on a scale from -1 to 1.
Less p² / 2s², which all of the task's answers share, that is linear in p too: every task's answers are one product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.types import HeadWeights

NEVER = -1e9  # a logit that no other comes near to; finite, since infinity times zero is no number
SPREAD = 0.5  # s, where answers are not farther apart than twice that


class AnswerHeads(nn.Module):
    """What each task's answers take from its head: answer a scores `features`[a] · (head · x) + `offsets`[a].

    Args:
        numbers: of each task: what its answers stand for, None where they are no numbers; and how many there are.

    Attributes:
        rows: of the largest head, k.
    """

    features: Tensor
    offsets: Tensor

    def __init__(self, numbers: Sequence[Sequence[float] | None], counts: Sequence[int]) -> None:
        super().__init__()
        self.rows = max(1 if given else count for given, count in zip(numbers, counts, strict=True))
        features = torch.zeros(len(counts), max(counts), self.rows)
        offsets = torch.full(features.shape[:2], NEVER)
        for task, (given, count) in enumerate(zip(numbers, counts, strict=True)):
            if given:
                found = torch.tensor(given, dtype=torch.float64)
                found = 2 * (found - found.min()) / (found.max() - found.min()) - 1
                sharpness = 0.5 / max(SPREAD, float(found.diff().abs().max()) / 2) ** 2
                features[task, :count, 0] = 2 * sharpness * found.float()
                offsets[task, :count] = -sharpness * found.square().float()
            else:
                features[task, :count] = torch.eye(count, self.rows)
                offsets[task, :count] = 0.0
        self.register_buffer("features", features, persistent=False)  # [T, A, k]
        self.register_buffer("offsets", offsets, persistent=False)  # [T, A]

    def forward(self, heads: HeadWeights, tasks: Tensor) -> HeadWeights:
        """One row of weights an answer: weight [n, A, d], bias [n, A], `NEVER` where a task has fewer answers.

        Args:
            heads: of n tasks, with k rows.
            tasks: which ones they are, [n].
        """
        features = self.features[tasks]  # [n, A, k]
        bias = (features @ heads.bias.unsqueeze(2)).squeeze(2) + self.offsets[tasks]  # [n, A]
        return HeadWeights(features @ heads.weight, bias)


def logits(x: Tensor, head: HeadWeights) -> Tensor:
    """The answers' logits [B, A] of vectors x [B, d]; the head is every row's own, n = B, or one for all, n = 1."""
    if len(head.weight) == 1:
        return nn.functional.linear(x, head.weight[0], head.bias[0])
    return torch.baddbmm(head.bias.unsqueeze(2), head.weight, x.unsqueeze(2)).squeeze(2)


def loss(found: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Each row's label-smoothed cross-entropy among its task's answers, [B], of logits [B, A] and labels [B]."""
    there = found > NEVER / 2
    shares = found.float().log_softmax(-1)
    wrong = -shares.gather(1, labels.unsqueeze(1)).squeeze(1)
    if not label_smoothing:
        return wrong
    mean = -shares.masked_fill(~there, 0.0).sum(1) / there.sum(1)
    return (1.0 - label_smoothing) * wrong + label_smoothing * mean
