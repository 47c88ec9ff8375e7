"""What flows between the floors. Tensors are torch's, but nothing here needs torch to be imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "validation", "test"]
Source = str | tuple[str, str]
"""What a backbone reads of a row: a text, or two that belong together (and the template of one)."""
Scoring = Literal["constrained", "likelihood"]
"""Of an answer's tokens: each among those that may follow in the task's answers, or among the whole vocabulary."""


class HyperFormerError(Exception):
    """A mistake that the user can mend. Its text says what was got, what was expected, and what to do."""


class RowError(HyperFormerError):
    """A row that cannot be answered.

    Attributes:
        row: its index among the rows that were asked for, from 0.
        reason: why, without the row's number.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row + 1}: {reason}")
        self.row, self.reason = row, reason


@dataclass(frozen=True)
class Example:
    """A row as text: what the backbone reads and what it should answer.

    `label` is the answer's index among those of a closed task.
    """

    task: str
    source: Source
    answer: str
    label: int | None = None


@dataclass(frozen=True)
class Site:
    """A place for an adapter: after a feed-forward (position 0) or a self-attention (position 1) of a block."""

    stack: Literal["encoder", "decoder"]
    layer: int
    position: int


@dataclass
class AdapterWeights:
    """The adapters of n tasks at all sites, stacked; d is the model's width, r the bottleneck.

    down [n, sites, r, d], down_bias [n, sites, r], up [n, sites, d, r], up_bias, gain and shift [n, sites, d].
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor
    gain: Tensor
    shift: Tensor


@dataclass
class HeadWeights:
    """The heads of n tasks, for backbones that read answers off a vector: weight [n, k, d], bias [n, k]."""

    weight: Tensor
    bias: Tensor


@dataclass
class Batch:
    """Rows of any mix of tasks: `task_ids` [B] and the backbone's own tensors by name."""

    task_ids: Tensor
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of a task's answers for one row, in the order of the task's labels."""

    task: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What a model says of a row: the likeliest label, every label's probability, and for regression a number.

    Where the answer was generated, `label` is its text, there are no probabilities, and a number only if it is one of
    the task's. `truncated` says, of a bundle's answer, that the text was longer than the
    task reads, and was cut.
    """

    label: str
    probabilities: dict[str, float]
    value: float | None = None
    truncated: bool = False
