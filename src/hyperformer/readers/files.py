"""Read rows from files: JSONL, and CSV with a header. Every row comes with its location for error messages."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from hyperformer.core.errors import HyperFormerError

Row = Mapping[str, Any]


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, and refuse duplicate keys."""
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        duplicate = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"duplicate key {duplicate!r}")
    return parsed


def parse_row(line: str, location: str) -> Row:
    """Parse a row that is a JSON object.

    Raises:
        HyperFormerError: the line is not a JSON object, or has duplicate keys.
    """
    try:
        row = json.loads(line, object_pairs_hook=_parse_object)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
        raise HyperFormerError(
            f"{location} is not valid JSON ({reason}): {line.strip()[:80]!r}; expected an object such as "
            '\'{"sentence": "…"}\''
        ) from None
    if not isinstance(row, dict):
        raise HyperFormerError(
            f'{location} is not a JSON object: {line[:80]!r}; expected an object such as \'{{"sentence": "…"}}\''
        )
    return row


def read_jsonl(file: TextIO, name: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a JSONL file, each with its location."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            location = f"{name}, line {number}"
            yield location, parse_row(line, location)


def _read_csv(file: TextIO, name: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a CSV file with a header, each with the location of its last line; a missing field is None."""
    csv.field_size_limit(sys.maxsize)
    table = csv.DictReader(file, strict=True)
    try:
        header = list(table.fieldnames or [])
        duplicates = sorted({column for column in header if header.count(column) > 1})
        if duplicates:
            raise HyperFormerError(
                f"{name}: duplicate column {duplicates[0]!r} in the header; expected unique names. Rename one column."
            )
        for row in table:
            location = f"{name}, line {table.line_num}"
            if None in row:
                raise HyperFormerError(
                    f"{location}: more fields than columns in the header. Quote texts that contain commas."
                )
            yield location, row
    except csv.Error as error:
        raise HyperFormerError(
            f"{name}, after line {table.line_num}: invalid CSV ({error}). Fix the quotes there."
        ) from None


def read_file(name: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file; bytes that are not UTF-8 become surrogates, which the check of each row refuses."""
    try:
        with Path(name).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from require_rows(READERS[Path(name).suffix.lower()](file, name), name)
    except OSError as error:
        raise HyperFormerError(f"cannot read {name} ({error.strerror}); expected a file of rows in UTF-8") from None


def require_rows(rows: Iterator[tuple[str, Row]], name: str) -> Iterator[tuple[str, Row]]:
    """Yield rows, and raise an error if there are none."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise HyperFormerError(f"{name} contains no rows; expected at least one")


READERS: dict[str, Callable[[TextIO, str], Iterator[tuple[str, Row]]]] = {".jsonl": read_jsonl, ".csv": _read_csv}
