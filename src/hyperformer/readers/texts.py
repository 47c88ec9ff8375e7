"""The texts of a row in the columns that are used, and the errors that all formats share."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.values import is_missing, to_text

Missing: TypeAlias = Literal["empty", "drop"] | None
"""Result for a value that is null, NaN or missing: `empty`, an empty text; `drop`, None; None, an error."""
TextRow: TypeAlias = tuple[str | None, ...]
"""Texts of a row in the order of the columns that are read."""
ADVICE = "Fill it, or set the task's `missing`"


def convert_row(
    row: Mapping[str, Any], columns: Sequence[str], missing: Missing, optional: Container[str] = ()
) -> TextRow:
    """Return the texts of a row's columns; None for a value of `optional` columns that is null or missing.

    Raises:
        HyperFormerError: A value has no text, or is null or missing and `missing` is None.
    """
    texts = []
    for column in columns:
        value = row.get(column)
        if type(value) is not str or not value.isascii():  # most values need no call
            if not is_missing(value):
                value = to_text(value, column)
            else:
                value = None if column in optional else _convert_missing(row, column, missing)
        texts.append(value)
    return tuple(texts)


def _convert_missing(row: Mapping[str, Any], column: str, missing: Missing) -> str | None:
    if missing == "empty":
        return ""
    if missing == "drop":
        return None
    if column in row:
        got = "null" if row[column] is None else "NaN"
        raise HyperFormerError(f"{column!r} is {got}; expected a text. {ADVICE}")
    columns = _describe_columns(column, row)
    advice = "Fix the task's `text` or `label_column`, or the names in the file" if columns.endswith("?") else ADVICE
    raise HyperFormerError(f"the row has no {column!r}; {columns} {advice}")


def _describe_columns(column: str, present: Iterable[str]) -> str:
    """List the columns that are present, and the one whose name is most similar to a missing column's."""
    names = [name for name in present if name]
    similar = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    hint = f" Did you mean {similar[0]!r}?" if similar else ""
    return f"its columns are {', '.join(map(repr, names)) or 'none'}.{hint}"


def check_columns(columns: Iterable[str], present: Sequence[str], location: str) -> None:
    """Check that each column that is used exists once.

    Raises:
        HyperFormerError: A column is missing or exists twice; the message names the most similar column.
    """
    for column in columns:
        if column not in present:
            raise HyperFormerError(
                f"{location} has no column {column!r}; {_describe_columns(column, present)} Fix the task's `text` or "
                "`label_column`, or the names in the file."
            )
        if present.count(column) > 1:
            raise HyperFormerError(
                f"{location} has two columns {column!r}; expected each used column once. Rename one."
            )
