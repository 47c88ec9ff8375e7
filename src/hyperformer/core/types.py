"""Core data types that all packages share. Importing this module does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Source = str | tuple[str, str]
"""Source of a row: a text, or a text pair. A template of sources has the same type."""
Scoring = Literal["constrained", "likelihood"]
"""Normalization of an answer's token probabilities: over the tokens that can follow in the task's answers
(`constrained`), or over the whole vocabulary (`likelihood`).
"""


@dataclass(frozen=True)
class Example:
    """A row as text: source and expected answer.

    `label` is the index of the answer for classification and regression tasks, and None for generative tasks.
    """

    task: str
    source: Source
    answer: str
    label: int | None = None


@dataclass(frozen=True)
class Site:
    """Insertion point of an adapter: after the feed-forward (position 0) or self-attention (position 1) of a block."""

    stack: Literal["encoder", "decoder"]
    layer: int
    position: int


@dataclass
class AdapterWeights:
    """Stacked weights of n tasks' adapters, at all sites that have one; d: hidden size, r: bottleneck.

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
    """Heads of n tasks on an encoder backbone, with k outputs each: weight [n, k, d], bias [n, k]."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of a task's answers for one row, in the order of `Task.answers`."""

    task: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """Prediction for a row: the most likely label, the probability of every label, and in regression the value.

    For generated answers, `label` is the generated text, `probabilities` is empty, and `value` is set only if the text
    is one of the task's numbers. `truncated` is true if the source was longer than `max_source_tokens`; only bundles
    set it.
    """

    label: str
    probabilities: dict[str, float]
    value: float | None = None
    truncated: bool = False
