"""Read JSONL files, which have a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from itertools import islice
from typing import Any, TextIO

from hyperformer.core.errors import HyperFormerError
from hyperformer.readers.texts import Missing, TextRow, check_columns, convert_row

EXAMPLE = '\'{"sentence": "…"}\' (JSONL; in pandas, to_json with orient="records" and lines=True)'


class _DuplicateKeys(dict[str, Any]):
    """A JSON object that has a key more than once; `duplicates` has these keys."""

    duplicates: frozenset[str]


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, and keep the names of keys that it has more than once."""
    parsed = dict(pairs)
    if len(parsed) == len(pairs):
        return parsed
    marked, keys = _DuplicateKeys(parsed), [key for key, _ in pairs]
    marked.duplicates = frozenset(key for key in keys if keys.count(key) > 1)
    return marked


_decode = json.JSONDecoder(object_pairs_hook=_make_object).decode


def parse_row(line: str, columns: Sequence[str]) -> dict[str, Any]:
    """Parse a row that is a JSON object.

    Args:
        line: The JSON.
        columns: Columns that are used.

    Raises:
        HyperFormerError: The line is not a JSON object, or has the key of a used column twice.
    """
    try:
        row = _decode(line)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
        if "integer string conversion" in reason:
            reason = "a number has thousands of digits"
        raise HyperFormerError(
            f"invalid JSON ({reason}): {line.strip()[:80]!r}; expected an object on a single line, such as {EXAMPLE}"
        ) from None
    if not isinstance(row, dict):
        raise HyperFormerError(
            f"not a JSON object: {line.strip()[:80]!r}; expected an object on a single line, such as {EXAMPLE}"
        )
    if isinstance(row, _DuplicateKeys) and (duplicates := sorted(row.duplicates.intersection(columns))):
        raise HyperFormerError(f"duplicate key {duplicates[0]!r}; expected each used column once. Remove one")
    return row


def read_jsonl(
    file: TextIO,
    name: str,
    columns: Sequence[str],
    missing: Missing = None,
    limit: int | None = None,
    optional: Container[str] = (),
) -> Iterator[tuple[int, TextRow]]:
    """Yield the texts of each row's used columns, with the number of its line; blank lines are no rows.

    Args:
        file: The file.
        name: Name of the file, for messages.
        columns: Columns to read.
        missing: Meaning of a value that is null or missing.
        limit: Number of rows to read, or None for all.
        optional: Columns whose value is None if it is null or missing.

    Raises:
        HyperFormerError: A line is not a JSON object, a value has no text, or no row has a column.
    """
    unseen, row, count = set(columns), dict[str, Any](), 0
    for number, line in enumerate(file, start=1):
        if line.isspace():
            continue
        try:
            row = parse_row(line, columns)
            texts = convert_row(row, columns, missing, optional)
        except HyperFormerError as error:
            raise HyperFormerError(f"{name}, line {number}: {error}.") from None
        if unseen:
            unseen.difference_update(row)
        yield number, texts
        count += 1
        if count == limit:
            break
    if row and unseen:
        check_columns(columns, list(row), name)


def list_text_keys(file: TextIO, name: str, limit: int) -> list[str]:
    """Return the keys of the first `limit` rows, in order of appearance, whose values are all null or have a text.

    Raises:
        HyperFormerError: A line is not a JSON object.
    """
    known: dict[str, bool] = {}  # key → whether its values have a text
    for number, line in enumerate(islice((line for line in file if not line.isspace()), limit), start=1):
        try:
            row = parse_row(line, [])
        except HyperFormerError as error:
            raise HyperFormerError(f"{name}, row {number}: {error}.") from None
        for key, value in row.items():
            known[key] = known.get(key, True) and (value is None or isinstance(value, str | int | float))
    return [key for key, has_text in known.items() if has_text and key]
