"""Read the rows of a file by the suffix of its name."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.readers.delimited import read_csv, read_tsv
from hyperformer.readers.jsonl import read_jsonl
from hyperformer.readers.parquet import read_parquet
from hyperformer.readers.texts import Missing, TextRow

GZIP = ".gz"
FORMATS = ("csv", "tsv", "jsonl", "parquet")
"""The suffixes of files of rows; each may be followed by `.gz`."""
BYTE_ORDER_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def is_row_file(name: str) -> bool:
    """Return whether the name has the suffix of a file of rows."""
    return _format(name) in FORMATS


def _format(name: str) -> str:
    return Path(name.lower().removesuffix(GZIP)).suffix[1:]


class RowFile:
    """The rows of a file; every iteration reads the file again, with a few rows in memory.

    Args:
        path: A file whose name ends in one of `FORMATS`, or in `.gz` after it.
        columns: Columns to read; other columns are not looked at.
        missing: Meaning of a value that is null or missing in JSONL or Parquet; a cell of CSV is never missing.
    """

    def __init__(self, path: Path, columns: Sequence[str], missing: Missing = None) -> None:
        self.path, self.columns, self.missing = path, list(columns), missing
        self._format = _format(path.name)
        self.unit = "row" if self._format == "parquet" else "line"

    def locate(self, number: int) -> str:
        """Return the location of the row with a number, for messages."""
        return f"{self.path}, {self.unit} {number}"

    def __iter__(self) -> Iterator[tuple[int, TextRow]]:
        """Yield the texts of each row's columns, with the number of its first line or, in Parquet, of the row.

        Raises:
            HyperFormerError: The file cannot be read exactly, or has no rows.
        """
        try:
            with self._open() as file:
                rows = self._read(file)
                first = next(rows, None)
                if first is None:
                    raise HyperFormerError(f"{self.path} has no rows; expected at least one. Use another file.")
                yield first
                yield from rows
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise HyperFormerError(f"{self.path} is damaged ({first_line(error)}). Copy it again.") from None
        except OSError as error:
            raise HyperFormerError(
                f"cannot read {self.path} ({error.strerror or first_line(error)}). Check the path, its permissions and "
                "the disk."
            ) from None

    @contextmanager
    def _open(self) -> Iterator[BinaryIO | TextIO]:
        is_compressed = self.path.name.lower().endswith(GZIP)
        with cast(BinaryIO, gzip.open(self.path)) if is_compressed else self.path.open("rb") as file:
            if self._format == "parquet" and is_compressed:  # its reader seeks
                with tempfile.TemporaryFile() as copy:
                    shutil.copyfileobj(file, copy)
                    yield copy
            elif self._format == "parquet":
                yield file
            else:
                start = file.read(4)
                for mark, encoding in BYTE_ORDER_MARKS.items():
                    if start.startswith(mark):
                        raise HyperFormerError(f"{self.path} is in {encoding}; expected UTF-8. Save it as UTF-8.")
                file.seek(0)
                # Bytes that are not UTF-8 become surrogates, which are refused in the columns that are used.
                newline = "\n" if self._format == "jsonl" else ""
                with io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline) as text:
                    yield text

    def _read(self, file: Any) -> Iterator[tuple[int, TextRow]]:
        name = str(self.path)
        if self._format == "parquet":
            return read_parquet(file, name, self.columns, self.missing)
        if self._format == "jsonl":
            return read_jsonl(file, name, self.columns, self.missing)
        return (read_csv if self._format == "csv" else read_tsv)(file, name, self.columns)
