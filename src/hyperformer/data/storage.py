"""Store rows as Parquet files, and read them in batches with flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray
from pyarrow import ipc, parquet

from hyperformer.core import files
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.rng import make_rng
from hyperformer.core.types import Split
from hyperformer.tasks import Task

BATCH_ROWS = 1000  # rows in memory at once
GROUP_ROWS = 100_000  # maximum number of rows of a Parquet row group
GROUP_BYTES = 1 << 25  # bytes after which a row group ends
Rows: TypeAlias = Dataset
Writer = Callable[[Path], None]


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows that stay in their files; every iteration reads the files again, in order and batch by batch.

    Attributes:
        read: takes column names, and returns the batches of the files with at least these columns.
        schema: the columns of these rows.
        mask: true for each selected row of the files; rows beyond the end of the mask are not selected.
    """

    read: Callable[[list[str]], Iterator[pa.RecordBatch]]
    schema: pa.Schema
    mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.mask))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.iter_batches():
            yield from batch.to_pylist()

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the selected rows in order, as record batches."""
        at = 0
        for number, batch in enumerate(self.read(self.schema.names)):
            if number % 10 == 0:
                pa.default_memory_pool().release_unused()  # it would keep tens of megabytes of past batches
            mask = self.mask[at : at + batch.num_rows]
            at += batch.num_rows
            if mask.any():
                yield batch.select(self.schema.names).slice(0, len(mask)).filter(pa.array(mask))
            if at >= len(self.mask):
                return

    def select_columns(self, names: list[str]) -> StoredRows:
        """Return the rows with only the named columns."""
        return replace(self, schema=pa.schema([self.schema.field(name) for name in names]))

    def select(self, chosen: NDArray[np.bool_]) -> StoredRows:
        """Return the rows for which `chosen` is true; `chosen` has one value for each of the `len(self)` rows."""
        mask = self.mask.copy()
        mask[self.mask] = chosen
        return replace(self, mask=mask)


def write_rows(rows: Mapping[str, Mapping[str, Rows | StoredRows]]) -> Writer:
    """Return a function that writes rows into a folder as `<task>/<split>.parquet`."""

    def write(folder: Path) -> None:
        for task, splits in rows.items():
            (folder / task).mkdir(parents=True)
            for split, table in splits.items():
                schema, batches = _schema_and_batches(table)
                with parquet.ParquetWriter(folder / task / f"{split}.parquet", schema) as file:
                    for group in _row_groups(schema, batches):
                        file.write_table(group)

    return write


def _schema_and_batches(rows: Rows | StoredRows) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if isinstance(rows, StoredRows):
        return rows.schema, rows.iter_batches()
    tables = rows.with_format("arrow")
    return tables[:0].schema.remove_metadata(), (
        batch.replace_schema_metadata() for table in tables.iter(BATCH_ROWS) for batch in table.to_batches()
    )


def _row_groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield tables of `GROUP_ROWS` rows; the last table and tables with long texts have fewer rows."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            table = pa.Table.from_batches(pending, schema)
            yield table.slice(0, GROUP_ROWS)
            pending = table.slice(GROUP_ROWS).to_batches()
            rows, size = sum(batch.num_rows for batch in pending), sum(batch.nbytes for batch in pending)
    if pending:
        yield pa.Table.from_batches(pending, schema)


def report_damage(file: Path) -> AbstractContextManager[None]:
    """Turn an error in reading a stage's Parquet or Arrow file into an error that names the file.

    Raises:
        HyperFormerError: if the file is missing or damaged.
    """
    return files.report_damage(file, pa.ArrowException)


def read_rows(folder: Path, task: str, split: Split) -> Rows:
    """Read into memory the rows that `write_rows` wrote.

    Raises:
        HyperFormerError: if the file of the rows is missing or damaged; the other readers of this module raise it too.
    """
    file = folder / task / f"{split}.parquet"
    with report_damage(file):
        return Dataset(parquet.read_table(file))


def stream_rows(folder: Path, task: str, split: Split) -> Iterator[dict[str, Any]]:
    """Yield in order the rows that `write_rows` wrote, with only a few of them in memory."""
    file = folder / task / f"{split}.parquet"
    with report_damage(file):
        yield from open_parquet(file)


def read_first_rows(folder: Path, task: str, split: Split, count: int) -> Rows:
    """Read into memory the first `count` rows that `write_rows` wrote, or all rows if there are fewer."""
    file = folder / task / f"{split}.parquet"
    with report_damage(file):
        rows = open_parquet(file, count)
        return Dataset(pa.Table.from_batches(rows.iter_batches(), rows.schema))


def sample_rows(folder: Path, task: str, split: Split, count: int, seed: int) -> Rows:
    """Return a random sample of the rows that `write_rows` wrote, in the order of the file.

    With the same seed, a larger sample contains every smaller one.

    Raises:
        HyperFormerError: if there are fewer than `count` rows, or if their file is missing or damaged.
    """
    file = folder / task / f"{split}.parquet"
    with report_damage(file):
        rows = open_parquet(file)
    if count > len(rows):
        raise HyperFormerError(
            f"task {task!r} has {len(rows)} {split} rows; expected at least {count}. Use fewer samples."
        )
    indices = make_rng(seed, "samples", task).permutation(len(rows))[:count]
    chosen = rows.select(mask_of(indices, len(rows)))
    with report_damage(file):
        return Dataset(pa.Table.from_batches(chosen.iter_batches(), chosen.schema))


def open_parquet(file: Path, limit: int | None = None) -> StoredRows:
    """Return the rows of a parquet file, or its first `limit` rows."""

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        # Memory-mapping or prefetching would keep a whole row group in memory.
        with parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as reader:
            for batch in reader.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                yield batch.select(columns)

    with parquet.ParquetFile(file) as reader:
        schema, rows = reader.schema_arrow.remove_metadata(), reader.metadata.num_rows
    return StoredRows(read, schema, np.ones(rows if limit is None else min(rows, limit), bool))


def open_arrow(path: Path, schema: pa.Schema, rows: int) -> StoredRows:
    """Return the rows of a file that is an Arrow stream."""

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        # Not memory-mapped: pages that only this process maps count as its memory.
        with pa.OSFile(str(path)) as source, ipc.open_stream(source) as stream:
            yield from stream

    return StoredRows(read, schema, np.ones(rows, bool))


def mask_of(indices: NDArray[np.int64], rows: int) -> NDArray[np.bool_]:
    """Return a mask of `rows` values that is true at the indices."""
    mask = np.zeros(rows, bool)
    mask[indices] = True
    return mask


def stream_training_texts(rows: Path, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Yield every text of every task's training rows."""
    for name, task in tasks.items():
        for row in stream_rows(rows, name, "train"):
            yield from (row[column] for column in task.text_columns)


def iter_chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of up to `size` rows."""
    chunk: list[Any] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def collect_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema | None = None) -> Rows:
    """Collect rows into one table in memory; there must be at least one row."""
    return Dataset(pa.concat_tables(pa.Table.from_pylist(chunk, schema) for chunk in iter_chunks(rows, 10_000)))
