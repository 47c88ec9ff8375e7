"""Read the rows of a file by the suffix of its name."""

from __future__ import annotations

import errno
import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import cast

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.readers.delimited import read_csv, read_tsv
from hyperformer.readers.jsonl import read_jsonl
from hyperformer.readers.parquet import read_parquet
from hyperformer.readers.texts import Missing, TextRow

GZIP = ".gz"
FORMATS = ("csv", "tsv", "jsonl", "parquet")
"""The suffixes of files of rows; each may be followed by `.gz`."""
LFS_POINTER = b"version https://git-lfs"
BINARY_FORMATS = {
    b"\xff\xfe\x00\x00": "text in UTF-32; expected UTF-8. Save it as UTF-8",
    b"\xff\xfe": "text in UTF-16; expected UTF-8. Save it as UTF-8",
    b"\xfe\xff": "text in UTF-16; expected UTF-8. Save it as UTF-8",
    b"\x1f\x8b": "compressed with gzip; expected text. Add .gz to its name",
    b"PK\x03\x04": "a ZIP file or a workbook; expected text. Save the sheet as CSV in UTF-8",
    b"PAR1": "a Parquet file; expected text. Rename it to .parquet",
}
"""Description of the files that begin with some bytes, and what to do."""
SAMPLE = 1 << 16
"""Number of bytes at the beginning of a file that are looked at before it is read."""


def is_row_file(name: str, stem: str | None = None) -> bool:
    """Return whether a name has the suffix of a file of rows and, if `stem` is not None, this stem before it."""
    plain = Path(name.lower().removesuffix(GZIP))
    return plain.suffix[1:] in FORMATS and stem in (None, name[: len(plain.stem)])


def _format(name: str) -> str:
    return Path(name.lower().removesuffix(GZIP)).suffix[1:]


class RowFile:
    """The rows of a file; every iteration reads the file again, with a few rows in memory.

    Args:
        path: A file whose name ends in one of `FORMATS`, or in `.gz` after it.
        columns: Columns to read; other columns are not looked at.
        missing: Meaning of a value that is null or missing in JSONL or Parquet; a cell of CSV is never missing.
        limit: Number of rows to read, or None for all.
    """

    def __init__(self, path: Path, columns: Sequence[str], missing: Missing = None, limit: int | None = None) -> None:
        self.path, self.columns, self.missing, self.limit = path, list(columns), missing, limit
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
            with self._open() as rows:
                first = next(rows, None)
                if first is None:
                    raise HyperFormerError(f"{self.path} has no rows; expected at least one. Use another file.")
                yield first
                yield from rows if self._format == "jsonl" or not self.limit else islice(rows, self.limit - 1)
        except gzip.BadGzipFile as error:
            if "Not a gzipped file" not in str(error):
                raise HyperFormerError(f"{self.path} is damaged ({first_line(error)}). Copy it again.") from None
            raise HyperFormerError(
                f"{self.path} is not compressed with gzip. Remove .gz from its name, or compress it."
            ) from None
        except (EOFError, zlib.error) as error:
            raise HyperFormerError(f"{self.path} is damaged ({first_line(error)}). Copy it again.") from None
        except OSError as error:
            if error.errno == errno.ENOSPC:  # of temporary files
                raise
            raise HyperFormerError(
                f"cannot read {self.path} ({error.strerror or first_line(error)}). Check the path, its permissions and "
                "the disk."
            ) from None

    @contextmanager
    def _open(self) -> Iterator[Iterator[tuple[int, TextRow]]]:
        if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
            raise HyperFormerError(
                f"{self.path} is a pipe or a device; expected a regular file. Copy the rows to a file."
            )
        name, is_compressed = str(self.path), self.path.name.lower().endswith(GZIP)
        with cast(io.BufferedReader, gzip.open(self.path)) if is_compressed else self.path.open("rb") as file:
            if file.peek(len(LFS_POINTER)).startswith(LFS_POINTER):
                raise HyperFormerError(f"{name} is a pointer of Git LFS; expected rows. Run git lfs pull.")
            if self._format == "parquet" and is_compressed:  # its reader seeks
                with tempfile.TemporaryFile() as copy:
                    shutil.copyfileobj(file, copy)
                    yield read_parquet(copy, name, self.columns, self.missing)
            elif self._format == "parquet":
                yield read_parquet(file, name, self.columns, self.missing)
            else:
                start = file.read(SAMPLE)
                file.seek(0)
                _check_text(start, self.path)
                # Bytes that are not UTF-8 become surrogates, which are refused in the columns that are used.
                newline = "\r" if b"\n" not in start and self._format != "jsonl" else "\n"
                with io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline) as text:
                    if self._format == "jsonl":
                        yield read_jsonl(text, name, self.columns, self.missing, self.limit)
                    else:
                        yield (read_csv if self._format == "csv" else read_tsv)(text, name, self.columns, newline)


def _check_text(start: bytes, path: Path) -> None:
    """Refuse a file that is not text in UTF-8, given its beginning."""
    for signature, description in BINARY_FORMATS.items():
        if start.startswith(signature):
            raise HyperFormerError(f"{path} is {description}.")
    if start.count(b"\0") > len(start) / 4:
        raise HyperFormerError(f"{path} is text in UTF-16, or binary; expected text in UTF-8. Save it as UTF-8.")
    if not start.strip(b"\xef\xbb\xbf\r\n\t "):
        raise HyperFormerError(f"{path} is empty; expected at least one row. Use another file.")
