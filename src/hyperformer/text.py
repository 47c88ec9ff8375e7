"""Row → source text, label → answer text, answer scores → `Answer`: the same in training, evaluation and serving."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

from hyperformer.types import Answer, HyperFormerError


def columns(template: str) -> list[str]:
    """The columns that a template names in braces, in order.

    Raises:
        HyperFormerError: a brace is open, empty, or holds more than a column's name.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise HyperFormerError(
            f"the text {template!r} has a stray brace ({error}); write columns as {{column}}"
        ) from None
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, form, conversion in parts:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise HyperFormerError(f"the text {template!r} holds {{{name}}}; write only the name of a column in braces")
    if not names:
        raise HyperFormerError(f"the text {template!r} names no column; write at least one as {{column}}")
    return names


def render(template: str, row: Mapping[str, Any]) -> str:
    """The source text of a row.

    Raises:
        HyperFormerError: the row lacks a column of the template, or has no text there.
    """
    parts = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            value = row.get(name)
            if value is None:
                raise HyperFormerError(f"the row has no {name!r}; expected the columns {', '.join(columns(template))}")
            if isinstance(value, (list, tuple, dict, bytes)):
                raise HyperFormerError(f"the row's {name!r} is a {type(value).__name__}, expected a text or a number")
            parts.append(str(value))
    return "".join(parts)


def grid(minimum: float, maximum: float, step: float) -> list[tuple[str, float]]:
    """The answers of a regression task: (text, number) from `minimum` to `maximum`, `step` apart."""
    decimals = max(len(f"{number:.6f}".rstrip("0").partition(".")[2]) for number in (minimum, step))
    count = math.floor((maximum - minimum) / step + 1e-9) + 1
    return [(f"{minimum + i * step:.{decimals}f}", minimum + i * step) for i in range(count)]


def nearest(numbers: Sequence[float], number: float) -> int:
    """The index of the grid's number that is nearest; of two equally near the lower."""
    return min(range(len(numbers)), key=lambda i: (abs(numbers[i] - number), i))


def probabilities(scores: Sequence[float]) -> list[float]:
    """Log-likelihoods normalised over the answers."""
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def combine(scores: Sequence[float], labels: Sequence[str], numbers: Sequence[float] | None = None) -> Answer:
    """The answer that a row's scores give: the likeliest label (of equals the first); for regression, a number too.

    Args:
        scores: log-likelihoods, one a label.
        labels: answer texts.
        numbers: of a regression task, what each answer stands for.
    """
    shares = probabilities(scores)
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    value = None if numbers is None else sum(share * number for share, number in zip(shares, numbers, strict=True))
    return Answer(labels[best], dict(zip(labels, shares, strict=True)), value)
