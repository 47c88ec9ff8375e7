"""Conversion of rows to source texts and of scores to answers, shared by training, evaluation and serving."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.types import Answer, Source


def find_columns(template: Source) -> list[str]:
    """Return the distinct column names of a template, or of a pair of templates, in order.

    Raises:
        HyperFormerError: A brace is unmatched, a pair of braces contains anything but a column name, or there are no
            braces.
    """
    if not isinstance(template, str):
        return list(dict.fromkeys(name for text in template for name in find_columns(text)))
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise HyperFormerError(
            f"the text {template!r} has a stray brace ({error}); write columns as {{column}}"
        ) from None
    names = [name for _, name, _, _ in fields if name is not None]
    for _, name, format_spec, conversion in fields:
        if name is not None and (not name.isidentifier() or format_spec or conversion):
            raise HyperFormerError(
                f"the text {template!r} contains {{{name}}}; write only the name of a column in braces"
            )
    if not names:
        raise HyperFormerError(f"the text {template!r} names no column; write at least one as {{column}}")
    return names


def render(template: Source, row: Mapping[str, Any]) -> Source:
    """Return the source text, or text pair, of a row.

    Raises:
        HyperFormerError: The row lacks a column of the template, or the column's value is neither a string nor a
            finite number.
    """
    if not isinstance(template, str):
        first, second = (_render_text(text, row, template) for text in template)
        return first, second
    return _render_text(template, row, template)


def _render_text(text: str, row: Mapping[str, Any], template: Source) -> str:
    pieces = []
    for literal, name, _, _ in string.Formatter().parse(text):
        pieces.append(literal)
        if name is not None:
            pieces.append(_format_value(name, row, template))
    return "".join(pieces)


def _format_value(name: str, row: Mapping[str, Any], template: Source) -> str:
    value = row.get(name)
    if value is None and name in row:
        raise HyperFormerError(f"the row's {name!r} is null, expected a string or a number")
    if value is None:
        present = ", ".join(map(str, row)) or "none"
        raise HyperFormerError(
            f"the row has no {name!r}; expected the columns {', '.join(find_columns(template))}, got {present}"
        )
    if isinstance(value, bool | list | tuple | dict | bytes):
        raise HyperFormerError(f"the row's {name!r} is a {type(value).__name__}, expected a string or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise HyperFormerError(f"the row's {name!r} is {value}, expected a string or a finite number")
    return str(value)


def format_template(template: Source) -> str:
    """Format a template, or a pair of templates, as Markdown."""
    return f"`{template}`" if isinstance(template, str) else " and ".join(map(format_template, template))


def join_source(source: Source) -> str:
    """Return a source as one text; the texts of a pair are joined with a space."""
    return source if isinstance(source, str) else " ".join(source)


def number_grid(minimum: float, maximum: float, step: float) -> list[tuple[str, float]]:
    """Return the answers of a regression task as pairs (text, number).

    The numbers are `minimum`, `minimum + step`, … up to `maximum`.
    """
    decimals = max(len(f"{number:.6f}".rstrip("0").partition(".")[2]) for number in (minimum, step))
    count = math.floor((maximum - minimum) / step + 1e-9) + 1
    return [(f"{minimum + i * step:.{decimals}f}", minimum + i * step) for i in range(count)]


def nearest_index(numbers: Sequence[float], number: float) -> int:
    """Return the index of the number nearest to `number`; if two are equally near, return the lower index."""
    return min(range(len(numbers)), key=lambda i: (abs(numbers[i] - number), i))


def normalize_scores(scores: Sequence[float]) -> list[float]:
    """Return the softmax of log-likelihoods."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def combine(scores: Sequence[float], labels: Sequence[str], numbers: Sequence[float] | None = None) -> Answer:
    """Return the answer of a row: its most likely label, and the probability of each label.

    If several labels are equally likely, the first one is the answer. In a regression task, the value of the answer is
    the mean of the numbers, weighted by their probabilities.

    Args:
        scores: Log-likelihood of each label.
        labels: Answer texts.
        numbers: Numeric value of each answer of a regression task; None for other tasks.
    """
    weights = normalize_scores(scores)
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    value = None if numbers is None else sum(weight * number for weight, number in zip(weights, numbers, strict=True))
    return Answer(labels[best], dict(zip(labels, weights, strict=True)), value)


def combine_rows(
    scores: Iterable[Sequence[float]], labels: Sequence[str], numbers: Sequence[float] | None = None
) -> list[Answer]:
    """Return the answer of each row, given the scores of all rows; see `combine` for the other arguments.

    Raises:
        RowError: The scores of a row are not finite.
    """
    combined = []
    for index, row in enumerate(scores):
        if not all(map(math.isfinite, row)):
            shown = ", ".join(f"{score:g}" for score in row[:3]) + (", …" if len(row) > 3 else "")
            raise RowError(
                index,
                f"the model's scores are {shown}; expected finite numbers. Check the model's weights, then train or "
                "export it again.",
            )
        combined.append(combine(row, labels, numbers))
    return combined
