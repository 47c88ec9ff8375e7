"""Heads, which score a task's answers from one vector per row, for backbones without a decoder.

The head of a classification task has one output per answer. The head of a regression task has a single output p, which
predicts a number. The score of an answer is then -(p - u)² / 2s², where u is the answer's number on a scale from -1 to
1. The term -p² / 2s² is equal for all answers of the task and is left out. The score is then linear in p, and one
matrix product computes the scores of the answers of any task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.core.types import HeadWeights

MASKED_LOGIT = -1e9
"""Logit of a masked token or answer; finite, because infinity times zero is not a number."""
MIN_STD = 0.5
"""Lower limit of s, which is otherwise half the widest gap between neighboring answers on the scale of u."""


class AnswerHeads(nn.Module):
    """The mapping from a head's outputs to the scores of a task's answers.

    The score of answer a is `features`[a] · (head · x) + `offsets`[a].

    Args:
        numbers: for each task, the numeric values of its answers; None if it is not a regression task.
        counts: for each task, the number of answers.

    Attributes:
        rows: number k of outputs of the largest head.
    """

    features: Tensor
    offsets: Tensor

    def __init__(self, numbers: Sequence[Sequence[float] | None], counts: Sequence[int]) -> None:
        super().__init__()
        self.rows = max(1 if grid else count for grid, count in zip(numbers, counts, strict=True))
        features = torch.zeros(len(counts), max(counts), self.rows)
        offsets = torch.full(features.shape[:2], MASKED_LOGIT)
        for task, (grid, count) in enumerate(zip(numbers, counts, strict=True)):
            if grid:
                u = torch.tensor(grid, dtype=torch.float64)
                u = 2 * (u - u.min()) / (u.max() - u.min()) - 1
                precision = 0.5 / max(MIN_STD, float(u.diff().abs().max()) / 2) ** 2  # 1 / 2s²
                features[task, :count, 0] = 2 * precision * u.float()
                offsets[task, :count] = -precision * u.square().float()
            else:
                features[task, :count] = torch.eye(count, self.rows)
                offsets[task, :count] = 0.0
        self.register_buffer("features", features, persistent=False)  # [T, A, k]
        self.register_buffer("offsets", offsets, persistent=False)  # [T, A]

    def forward(self, heads: HeadWeights, tasks: Tensor) -> HeadWeights:
        """Return heads with one output per answer: weight [n, A, d], bias [n, A].

        The bias is `MASKED_LOGIT` beyond the last answer of a task.

        Args:
            heads: the heads of n tasks, with k outputs.
            tasks: indices of these tasks, [n].
        """
        features = self.features[tasks]  # [n, A, k]
        bias = (features @ heads.bias.unsqueeze(2)).squeeze(2) + self.offsets[tasks]  # [n, A]
        return HeadWeights(features @ heads.weight, bias)


def compute_logits(x: Tensor, head: HeadWeights) -> Tensor:
    """Compute the logits of the answers [B, A].

    Args:
        x: a vector per row, [B, d].
        head: a head per row (n = B), or one head for all rows (n = 1).
    """
    if len(head.weight) == 1:
        return nn.functional.linear(x, head.weight[0], head.bias[0])
    return torch.baddbmm(head.bias.unsqueeze(2), head.weight, x.unsqueeze(2)).squeeze(2)


def compute_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Compute each row's label-smoothed cross-entropy over its task's answers, [B].

    Args:
        logits: [B, A], `MASKED_LOGIT` for answers that a row's task does not have.
        labels: index of the true answer, [B].
        label_smoothing: probability that is spread evenly over the task's answers.
    """
    valid = logits > MASKED_LOGIT / 2
    log_probabilities = logits.float().log_softmax(-1)
    cross_entropy = -log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    if not label_smoothing:
        return cross_entropy
    mean = -log_probabilities.masked_fill(~valid, 0.0).sum(1) / valid.sum(1)
    return (1.0 - label_smoothing) * cross_entropy + label_smoothing * mean
