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
from hyperformer.readers.delimited import read_csv, read_header, read_tsv
from hyperformer.readers.jsonl import list_text_keys, read_jsonl
from hyperformer.readers.parquet import list_text_columns, read_parquet
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
FIRST_ROWS = 1000
"""Number of rows of a JSONL file whose keys are its columns."""


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
        optional: Further columns to read, whose value is None if it is null or missing.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        missing: Missing = None,
        limit: int | None = None,
        optional: Sequence[str] = (),
    ) -> None:
        self.path, self.missing, self.limit, self.optional = path, missing, limit, set(optional) - set(columns)
        self.columns = list(dict.fromkeys([*columns, *optional]))
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
        with self._explain_errors(), self._open() as rows:
            first = next(rows, None)
            if first is None:
                raise HyperFormerError(f"{self.path} has no rows; expected at least one. Use another file.")
            yield first
            yield from rows if self._format == "jsonl" or not self.limit else islice(rows, self.limit - 1)

    def list_columns(self) -> list[str]:
        """Return the names of the file's columns that can be used; of JSONL, those of the first `FIRST_ROWS` rows.

        Columns without a name, and those of Parquet and JSONL whose values have no text, are left out.

        Raises:
            HyperFormerError: The file cannot be read exactly.
        """
        with self._explain_errors(), self._open_file() as file:
            if self._format == "parquet":
                return list_text_columns(file, str(self.path))
            with self._open_text(file) as text:
                if self._format == "jsonl":
                    return list_text_keys(text, str(self.path), FIRST_ROWS)
                names = read_header(text, str(self.path), "\t" if self._format == "tsv" else ",;\t")
        return [name for name in names if name]

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turn errors of the block in reading the file into errors with its path."""
        try:
            yield
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
        name = str(self.path)
        with self._open_file() as file:
            if self._format == "parquet":
                yield read_parquet(file, name, self.columns, self.missing, self.optional)
                return
            with self._open_text(file) as text:
                if self._format == "jsonl":
                    yield read_jsonl(text, name, self.columns, self.missing, self.limit, self.optional)
                else:
                    yield (read_csv if self._format == "csv" else read_tsv)(text, name, self.columns, text.newline)

    @contextmanager
    def _open_file(self) -> Iterator[io.BufferedReader]:
        """Open the file; decompress it to a temporary file if its reader seeks."""
        if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
            raise HyperFormerError(
                f"{self.path} is a pipe or a device; expected a regular file. Copy the rows to a file."
            )
        is_compressed = self.path.name.lower().endswith(GZIP)
        with cast(io.BufferedReader, gzip.open(self.path)) if is_compressed else self.path.open("rb") as file:
            if file.peek(len(LFS_POINTER)).startswith(LFS_POINTER):
                raise HyperFormerError(f"{self.path} is a pointer of Git LFS; expected rows. Run git lfs pull.")
            if self._format == "parquet" and is_compressed:
                with tempfile.TemporaryFile() as copy:
                    shutil.copyfileobj(file, copy)
                    yield cast(io.BufferedReader, copy)
            else:
                yield file

    def _open_text(self, file: io.BufferedReader) -> _TextFile:
        """Check that a file is text, and open it with the line ends of its beginning."""
        start = file.read(SAMPLE)
        file.seek(0)
        _check_text(start, self.path)
        return _TextFile(file, "\r" if b"\n" not in start and self._format != "jsonl" else "\n")


class _TextFile(io.TextIOWrapper):
    """Text in UTF-8; bytes that are not UTF-8 become surrogates, which are refused in the columns that are used."""

    def __init__(self, file: io.BufferedReader, newline: str) -> None:
        super().__init__(file, "utf-8-sig", "surrogateescape", newline)
        self.newline = newline


def _check_text(start: bytes, path: Path) -> None:
    """Refuse a file that is not text in UTF-8, given its beginning."""
    for signature, description in BINARY_FORMATS.items():
        if start.startswith(signature):
            raise HyperFormerError(f"{path} is {description}.")
    if start.count(b"\0") > len(start) / 4:
        raise HyperFormerError(f"{path} is text in UTF-16, or binary; expected text in UTF-8. Save it as UTF-8.")
    if not start.strip(b"\xef\xbb\xbf\r\n\t "):
        raise HyperFormerError(f"{path} is empty; expected at least one row. Use another file.")
