"""Read CSV and TSV files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, TextIO

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.values import to_text
from hyperformer.readers.texts import TextRow, check_columns

MAX_CELL = 1 << 26
"""Largest number of characters of a cell; a quote that is never closed would otherwise read the whole file."""
ADVICE = 'Write a text with quotes as a quoted cell with each quote doubled, such as """Good"" he said"'
CHUNK = 500
"""Number of rows that are checked at once."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Characters that may separate the cells of a CSV file, with their names."""


def read_csv(
    file: TextIO, name: str, columns: Sequence[str], newline: str, delimiters: str = ",;\t"
) -> Iterator[tuple[int, TextRow]]:
    """Yield the texts of each row's used columns, with the number of the row's first line.

    The first row has the names of the columns; columns without a name cannot be used. The text of a cell is its
    characters. A cell that begins with a quote ends with a quote, and each quote in it is doubled (RFC 4180). Blank
    lines are no rows.

    Args:
        file: The file, opened with `newline`.
        name: Name of the file, for messages.
        columns: Columns to read.
        newline: Last character of a line.
        delimiters: Characters that may separate cells: the first with which the header has all columns.

    Raises:
        HyperFormerError: A used column is missing or exists twice, a row has another number of cells than the header,
            quotes are wrong, or a cell is not UTF-8.
    """
    csv.field_size_limit(MAX_CELL)
    table, header = _open_table(file, name, columns, delimiters)
    if header[0].startswith("sep="):
        raise HyperFormerError(f"{name}, line 1: {header[0]!r}; expected the names of the columns. Remove this line.")
    if len(header) == 1 and len(columns) > 1:
        names = ", ".join(DELIMITERS[delimiter] for delimiter in delimiters)
        raise HyperFormerError(f"{name} has the single column {header[0]!r}; expected cells separated by {names}.")
    check_columns(columns, header, name)
    convert = _Converter(name, columns, header, table.dialect.delimiter, newline)
    rows: list[list[str]] = [header]
    while rows:
        line, rows, error = table.line_num + 1, [], None
        try:
            rows.extend(islice(table, CHUNK))
        except csv.Error as quotes:  # the rows before the error are in `rows`
            error = quotes
        yield from convert(rows, line, table.line_num)
        if error:
            *_, line = _locate_rows(rows, line, newline)
            raise _quotes_error(error, file, name, line, table.line_num)


def read_header(file: TextIO, name: str, delimiters: str = ",;\t") -> list[str]:
    """Return the names of the columns of a CSV file, with the delimiter that gives most columns.

    Raises:
        HyperFormerError: The quotes of the header are wrong.
    """
    csv.field_size_limit(MAX_CELL)
    return _open_table(file, name, [], delimiters)[1]


class _Converter:
    """Checks rows and selects the cells of the used columns."""

    def __init__(self, name: str, columns: Sequence[str], header: Sequence[str], delimiter: str, newline: str) -> None:
        self._name, self._columns, self._width = name, columns, len(header)
        self._delimiter, self._newline = delimiter, newline
        self._select = _select([header.index(column) for column in columns])
        self._blank_line: int | None = None

    def __call__(self, rows: list[list[str]], first: int, last: int) -> Iterable[tuple[int, TextRow]]:
        """Return the texts of rows in the lines from `first` to `last`, each with its line."""
        is_row_a_line = len(rows) == last - first + 1
        lines: Iterable[int] = range(first, last + 1) if is_row_a_line else _locate_rows(rows, first, self._newline)
        is_ambiguous = (
            self._delimiter == "\t" and not is_row_a_line and any(self._find_merged_lines(row) for row in rows)
        )
        if set(map(len, rows)) == {self._width} and self._blank_line is None and not is_ambiguous:
            selected = list(map(self._select, rows))
            if _is_utf8("".join(chain.from_iterable(selected))):
                return zip(lines, selected, strict=False)
        return self._convert_each(zip(lines, rows, strict=False))

    def _find_merged_lines(self, row: Sequence[str]) -> str | None:
        """Return the cell of a row of a TSV file that has a tab and a line break, as rows have that a quote merges.

        Databases write TSV without quotes, so that a quote at the beginning of a text may take in the rows after it.
        """
        return next((text for text in row if "\t" in text and self._newline in text), None)

    def _convert_each(self, rows: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, TextRow]]:
        for line, row in rows:
            if not row:
                if self._width == 1:
                    self._blank_line = self._blank_line or line
                continue
            location = f"{self._name}, line {line}"
            if len(row) != self._width:
                raise HyperFormerError(f"{location}: {_describe_width(len(row), self._width, self._delimiter)}.")
            if self._blank_line:
                raise HyperFormerError(
                    f"{self._name}, line {self._blank_line}: a blank line; expected a cell. Write a pair of quotes for "
                    "an empty text, or remove the line."
                )
            if self._delimiter == "\t" and (merged := self._find_merged_lines(row)):
                raise HyperFormerError(
                    f"{location}: a quote opens a cell with a tab and a line break, {merged[:40]!r}, which may be "
                    "several rows; expected quotes that belong to the text to be doubled, in a quoted cell. Save "
                    "the file as CSV or JSONL."
                )
            texts = self._select(row)
            try:
                for text, column in zip(texts, self._columns, strict=True):
                    to_text(text, column)  # refuses what is not UTF-8
            except HyperFormerError as error:
                raise HyperFormerError(f"{location}: {error}.") from None
            yield line, texts


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _locate_rows(rows: Iterable[Sequence[str]], line: int, newline: str) -> Iterator[int]:
    """Yield the first line of each row, of which the first begins at `line`, and the line after them."""
    yield line
    for row in rows:
        line += 1 + "".join(row).count(newline)
        yield line


def read_tsv(file: TextIO, name: str, columns: Sequence[str], newline: str) -> Iterator[tuple[int, TextRow]]:
    """Yield the rows of a file whose cells are separated by tabs; see `read_csv`."""
    return read_csv(file, name, columns, newline, "\t")


def _open_table(file: TextIO, name: str, columns: Sequence[str], delimiters: str) -> tuple[Any, list[str]]:
    """Return a reader of the rows after the header, and the header.

    The delimiter is the first with which the header has all columns or, if there is none, or no column is used, that
    gives most columns.
    """
    headers, error, last = {}, None, 0
    for delimiter in delimiters:
        file.seek(0)
        table = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            headers[delimiter] = next((row for row in table if row), [])
        except csv.Error as quotes:
            headers[delimiter], error, last = [], quotes, table.line_num
    if error and not any(headers.values()):
        raise _quotes_error(error, file, name, 1, last)
    fitting = (delimiter for delimiter in delimiters if columns and set(columns) <= set(headers[delimiter]))
    chosen = next(fitting, max(delimiters, key=lambda delimiter: len(headers[delimiter])))
    file.seek(0)
    table = csv.reader(file, delimiter=chosen, strict=True)
    return table, next((row for row in table if row), [])


def _select(indices: Sequence[int]) -> Callable[[list[str]], tuple[str, ...]]:
    """Return a function that returns the cells at the indices."""
    if len(indices) > 1:
        return itemgetter(*indices)
    [index] = indices
    return lambda row: (row[index],)


def _describe_width(count: int, width: int, delimiter: str) -> str:
    if count > width:
        names = DELIMITERS[delimiter]
        return (
            f"{count} cells, more cells than the header has ({width}). Quote texts that contain {names}, without a "
            "space before the quote, or name all columns in the header"
        )
    unit = "cell" if count == 1 else "cells"
    return f"{count} {unit}, fewer cells than the header has ({width}). Add the missing cells, or remove the line"


def _quotes_error(error: csv.Error, file: TextIO, name: str, first: int, last: int) -> HyperFormerError:
    """Return the error for wrong quotes in the row from line `first` to line `last` of a file."""
    file.seek(0)
    if "limit" in str(error):
        reason = f"a cell has more than {MAX_CELL} characters; a quote may not be closed. Close the quote"
    elif "end of data" in str(error):
        reason = f"a quote opens a cell and nothing closes it. {ADVICE}"
    elif '\\"' in "".join(islice(file, first - 1, last)):
        reason = (
            'a backslash before a quote (\\"); expected quotes in a cell to be doubled (""). Write the file without an '
            "escape character, as spreadsheets and data frames do by default"
        )
    elif "new-line" in str(error):
        reason = "a carriage return in a cell that is not quoted. Quote the cell, or remove the carriage return"
    else:
        reason = f"text follows the closing quote of a cell. {ADVICE}"
    return HyperFormerError(f"{name}, line {first}: {reason}.")
