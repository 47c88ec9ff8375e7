"""Read CSV and TSV files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, TextIO

from hyperformer.core.errors import HyperFormerError
from hyperformer.readers.texts import TextRow, check_columns, convert_row

MAX_CELL = 1 << 26
"""Largest number of characters of a cell; a quote that is never closed would otherwise read the whole file."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Characters that may separate the cells of a CSV file, with their names."""


def read_csv(
    file: TextIO, name: str, columns: Sequence[str], delimiters: str = ",;\t"
) -> Iterator[tuple[int, TextRow]]:
    """Yield the texts of each row's used columns, with the number of the row's first line.

    The first row has the names of the columns; columns without a name cannot be used. The text of a cell is its
    characters. A cell that begins with a quote ends with a quote, and each quote in it is doubled (RFC 4180). Blank
    lines are no rows.

    Args:
        file: The file, opened with `newline=""`.
        name: Name of the file, for messages.
        columns: Columns to read.
        delimiters: Characters that may separate cells: the first with which the header has all columns.

    Raises:
        HyperFormerError: A used column is missing or exists twice, a row has another number of cells than the header,
            quotes are wrong, or a cell is not UTF-8.
    """
    csv.field_size_limit(MAX_CELL)
    table, header = _open_table(file, name, columns, delimiters)
    if len(header) == 1 and header != list(columns):
        names = ", ".join(DELIMITERS[delimiter] for delimiter in delimiters)
        raise HyperFormerError(f"{name} has the single column {header[0]!r}; expected cells separated by {names}.")
    check_columns(columns, header, name)
    select, width, blank = _select([header.index(column) for column in columns]), len(header), 0
    line = table.line_num + 1
    try:
        for row in table:
            if len(row) == width:
                if blank and width == 1:
                    line = blank
                    raise HyperFormerError('a blank line; expected a cell. Write "" for an empty text, or remove it')
                texts = select(row)
                if not "".join(texts).isascii():
                    convert_row(dict(zip(columns, texts, strict=True)), columns, None)  # refuses what is not UTF-8
                yield line, texts
            elif row:
                raise HyperFormerError(_describe_width(len(row), width, table.dialect.delimiter))
            else:
                blank = blank or line
            line = table.line_num + 1
    except csv.Error as error:
        raise _quotes_error(error, file, name, line, table.line_num) from None
    except HyperFormerError as error:
        raise HyperFormerError(f"{name}, line {line}: {error}.") from None


def read_tsv(file: TextIO, name: str, columns: Sequence[str]) -> Iterator[tuple[int, TextRow]]:
    """Yield the rows of a file whose cells are separated by tabs; see `read_csv`."""
    return read_csv(file, name, columns, "\t")


def _open_table(file: TextIO, name: str, columns: Sequence[str], delimiters: str) -> tuple[Any, list[str]]:
    """Return a reader of the rows after the header, and the header.

    The delimiter is the first with which the header has all columns or, if there is none, that gives most columns.
    """

    def open_with(delimiter: str) -> tuple[Any, list[str]]:
        file.seek(0)
        table = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            return table, next((row for row in table if row), [])
        except csv.Error as error:
            if len(delimiters) > 1:
                return table, []
            raise _quotes_error(error, file, name, 1, table.line_num) from None

    headers = {delimiter: open_with(delimiter)[1] for delimiter in delimiters}
    fitting = (delimiter for delimiter in delimiters if set(columns) <= set(headers[delimiter]))
    return open_with(next(fitting, max(delimiters, key=lambda delimiter: len(headers[delimiter]))))


def _select(indices: Sequence[int]) -> Callable[[list[str]], tuple[str, ...]]:
    """Return a function that returns the cells at the indices."""
    if len(indices) > 1:
        return itemgetter(*indices)
    [index] = indices
    return lambda row: (row[index],)


def _describe_width(count: int, width: int, delimiter: str) -> str:
    if count > width:
        names = DELIMITERS[delimiter]
        return f"{count} cells, more cells than the header has ({width}). Quote texts that contain {names}"
    return f"{count} cells, fewer cells than the header has ({width}). Add the missing cells, or remove the line"


def _quotes_error(error: csv.Error, file: TextIO, name: str, first: int, last: int) -> HyperFormerError:
    """Return the error for wrong quotes in the row from line `first` to line `last` of a file."""
    file.seek(0)
    if "limit" in str(error):
        reason = f"a cell has more than {MAX_CELL} characters; a quote may not be closed. Close the quote"
    elif '\\"' in "".join(islice(file, first - 1, last)):
        reason = (
            'a backslash before a quote (\\"); expected quotes in a cell to be doubled (""). Write the file without an '
            "escape character, as spreadsheets and data frames do by default"
        )
    elif "end of data" in str(error):
        reason = "a quote opens a cell and nothing closes it. Close it, or double the quotes that belong to a text"
    else:
        reason = 'text follows the closing quote of a cell; expected quotes in a cell to be doubled (""). Double them'
    return HyperFormerError(f"{name}, line {first}: {reason}.")
