"""Row → source text, label → answer text, answer scores → `Answer`: the same in training, evaluation and serving."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hyperformer.types import Answer, HyperFormerError, RowError, Source


def columns(template: Source) -> list[str]:
    """The columns that a template, or each of two, names in braces, in order.

    Raises:
        HyperFormerError: a brace is open, empty, or holds more than a column's name, or there is none.
    """
    if not isinstance(template, str):
        return list(dict.fromkeys(name for part in template for name in columns(part)))
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


def render(template: Source, row: Mapping[str, Any]) -> Source:
    """The source text of a row, or its two.

    Raises:
        HyperFormerError: the row lacks a column of the template, or has no text there.
    """
    if not isinstance(template, str):
        first, second = (_rendered(part, row, template) for part in template)
        return first, second
    return _rendered(template, row, template)


def _rendered(part: str, row: Mapping[str, Any], whole: Source) -> str:
    found = []
    for literal, name, _, _ in string.Formatter().parse(part):
        found.append(literal)
        if name is not None:
            found.append(_value(name, row, whole))
    return "".join(found)


def _value(name: str, row: Mapping[str, Any], template: Source) -> str:
    value = row.get(name)
    if value is None and name in row:
        raise HyperFormerError(f"the row's {name!r} is null, expected a text or a number")
    if value is None:
        held = ", ".join(map(str, row)) or "none"
        raise HyperFormerError(
            f"the row has no {name!r}; expected the columns {', '.join(columns(template))}, got {held}"
        )
    if isinstance(value, bool | list | tuple | dict | bytes):
        raise HyperFormerError(f"the row's {name!r} is a {type(value).__name__}, expected a text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise HyperFormerError(f"the row's {name!r} is {value}, expected a text or a number")
    return str(value)


def named(template: Source) -> str:
    """A template, or two, as a reader of Markdown should see it."""
    return f"`{template}`" if isinstance(template, str) else " and ".join(map(named, template))


def joined(source: Source) -> str:
    """The source as one text."""
    return source if isinstance(source, str) else " ".join(source)


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


def answers(
    scores: Iterable[Sequence[float]], labels: Sequence[str], numbers: Sequence[float] | None = None
) -> list[Answer]:
    """Combine the scores of each row into its answer; arguments are those of `combine`, for several rows.

    Raises:
        RowError: a row's scores are not finite.
    """
    combined = []
    for number, row in enumerate(scores):
        if not all(map(math.isfinite, row)):
            shown = ", ".join(f"{score:g}" for score in row[:3]) + (", …" if len(row) > 3 else "")
            raise RowError(
                number,
                f"the model's scores are {shown}; expected finite numbers. Check the model's weights, then train or "
                "export it again.",
            )
        combined.append(combine(row, labels, numbers))
    return combined
