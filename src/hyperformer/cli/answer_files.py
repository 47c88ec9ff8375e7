"""A file of answers, which is complete or absent; a run that was stopped continues from the answers beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import replace_file

FORMATS = ("csv", "jsonl", "parquet")
"""Suffixes of files of answers."""
BATCH_ROWS = 10_000
"""Rows of a Parquet file that are written at once."""
Record = Mapping[str, Any]
"""The values of a row of the file, by column; each row has the same columns."""


class AnswerFile:
    """Writes answers to a partial file beside the file, as JSONL, and converts it when all rows are answered.

    Args:
        path: the file, with a suffix in `FORMATS`.
        run: what the answers depend on; a partial file of another run is not continued.
        chunk: number of rows that are answered at a time. A chunk that was not written completely is answered again,
            because the rows that are computed together change the last digits of probabilities.

    Attributes:
        partial: the partial file.
        answered: number of rows that an earlier run has answered.

    Raises:
        HyperFormerError: the suffix is unknown, the file exists, or the partial file is of another run.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], chunk: int) -> None:
        if path.suffix[1:] not in FORMATS:
            raise HyperFormerError(f"got --output {path}; expected a file {', '.join(f'.{name}' for name in FORMATS)}.")
        if path.exists():
            raise HyperFormerError(f"{path} exists already, and nothing is overwritten. Remove it, or choose another.")
        if path.suffix == ".parquet":
            _import_pyarrow(path)
        self.path, self.partial = path, path.with_name(f"{path.name}.partial")
        header = json.dumps({**run, "chunk": chunk}, sort_keys=True)
        self.answered = _count_answers(self.partial, header, chunk) if self.partial.exists() else 0
        is_new = not self.partial.exists()
        self._file = self.partial.open("a", encoding="utf-8")
        if is_new:
            self._file.write(f"{header}\n")

    def write(self, records: Iterable[Record]) -> None:
        """Append the answers of rows to the partial file."""
        self._file.writelines(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
        self._file.flush()

    def complete(self) -> None:
        """Convert the partial file to the file, and remove it."""
        self._file.close()
        with replace_file(self.path) as new, self.partial.open(encoding="utf-8") as lines:
            next(lines)
            if self.path.suffix == ".jsonl":
                with new.open("w", encoding="utf-8") as file:
                    file.writelines(lines)
            elif self.path.suffix == ".csv":
                _write_csv(new, map(json.loads, lines))
            else:
                _write_parquet(new, map(json.loads, lines))
        self.partial.unlink()

    def close(self) -> None:
        """Close the partial file, which stays."""
        self._file.close()


def _import_pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise HyperFormerError(
            f"writing {path} requires pyarrow, which is not installed. Install pyarrow, or write .jsonl."
        ) from None
    return pyarrow


def _count_answers(partial: Path, header: str, chunk: int) -> int:
    """Return the number of lines after the header in complete chunks, and cut off the lines after them."""
    with partial.open("rb+") as file:
        if file.readline().decode(errors="replace").rstrip("\n") != header:
            raise HyperFormerError(
                f"{partial} has the answers of a run with other rows, options or another task; expected those of this "
                "run. Remove it to start again, or choose another --output."
            )
        count, end, position = 0, file.tell(), file.tell()
        for number, line in enumerate(file, start=1):
            position += len(line)
            if number % chunk == 0 and line.endswith(b"\n"):
                count, end = number, position
        file.truncate(end)
    return count


def _write_csv(file: Path, records: Iterator[Record]) -> None:
    with file.open("w", encoding="utf-8", newline="") as sink:
        first = next(records)
        table = csv.DictWriter(sink, list(first))
        table.writeheader()
        table.writerow(first)
        table.writerows(records)


def _write_parquet(file: Path, records: Iterator[Record]) -> None:
    pyarrow = _import_pyarrow(file)
    first = next(records)
    kinds = {bool: pyarrow.bool_(), float: pyarrow.float64(), int: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds.get(type(value), pyarrow.string())) for name, value in first.items()])
    batch = [first, *islice(records, BATCH_ROWS - 1)]
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while batch:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            batch = list(islice(records, BATCH_ROWS))
