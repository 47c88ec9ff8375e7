"""Conversion of rows to source texts and of scores to answers, shared by training, evaluation and serving."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.types import Answer, Source
from hyperformer.core.values import is_missing, to_text

_TOKEN = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<column>[^{}]*)\}|(?P<literal>[^{}]+)|(?P<stray>.)", re.DOTALL)


@lru_cache(maxsize=1024)
def parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Parse a template with column names in braces; `{{` and `}}` are literal braces.

    Returns:
        Pairs of a literal text and the name of the column after it; the name is None after the last literal.

    Raises:
        HyperFormerError: A brace is unmatched, braces have no column name or a name with `:` or `!`, or there are no
            columns.
    """
    pieces: list[tuple[str, str | None]] = []
    literal = ""
    for match in _TOKEN.finditer(template):
        name = match["column"]
        if match["stray"]:
            raise HyperFormerError(
                f"the text {template!r} has a stray {match['stray']!r}; write columns as {{column}}, and a literal "
                "brace as {{ or }}"
            )
        if name is None:
            literal += match["literal"] or match["brace"][0]
            continue
        if not name.strip() or ":" in name or "!" in name:
            expected = " without ':' or '!'" if name.strip() else ""
            raise HyperFormerError(
                f"the text {template!r} contains {{{name}}}; expected the name of a column{expected} in braces. Rename "
                "the column, or write a literal brace as {{ or }}"
            )
        pieces.append((literal, name))
        literal = ""
    if not pieces:
        raise HyperFormerError(f"the text {template!r} names no column; write at least one as {{column}}")
    return (*pieces, (literal, None))


def find_columns(template: Source) -> list[str]:
    """Return the distinct column names of a template, or of a pair of templates, in order; see `parse_template`."""
    texts = [template] if isinstance(template, str) else template
    return list(dict.fromkeys(name for text in texts for _, name in parse_template(text) if name is not None))


def render(template: Source, row: Mapping[str, Any], missing: Literal["empty"] | None = None) -> Source:
    """Return the source text, or text pair, of a row.

    Args:
        template: Template, or pair of templates.
        row: Values by column; `values.to_text` defines their texts.
        missing: If `"empty"`, a value that is null or missing is an empty text.

    Raises:
        HyperFormerError: The row lacks a column of the template, or a value has no text.
    """
    if isinstance(template, str):
        return _render_text(template, row, template, missing)
    first, second = (_render_text(text, row, template, missing) for text in template)
    return first, second


def _render_text(text: str, row: Mapping[str, Any], template: Source, missing: Literal["empty"] | None) -> str:
    pieces = []
    for literal, name in parse_template(text):
        pieces.append(literal)
        if name is not None:
            value = row.get(name)
            if missing == "empty" and is_missing(value):
                continue
            if value is None and name not in row:
                present = ", ".join(map(str, row)) or "none"
                raise HyperFormerError(
                    f"the row has no {name!r}; expected the columns {', '.join(find_columns(template))}, got {present}"
                )
            pieces.append(to_text(value, name))
    return "".join(pieces)


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
