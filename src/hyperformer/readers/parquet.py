"""Read Parquet files, with pyarrow."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.readers.texts import Missing, TextRow, check_columns, convert_row

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

BATCH_ROWS = 1000
"""Number of rows in memory at once."""
BUFFER_BYTES = 1 << 20
"""Number of bytes that are read from a file at once."""


def read_parquet(
    file: BinaryIO, name: str, columns: Sequence[str], missing: Missing = None, optional: Container[str] = ()
) -> Iterator[tuple[int, TextRow]]:
    """Yield the texts of each row's used columns, with the number of the row from 1.

    Args:
        file: The file.
        name: Name of the file, for messages.
        columns: Columns to read; the types of other columns do not matter.
        missing: Meaning of a value that is null.
        optional: Columns whose value is None if it is null.

    Raises:
        HyperFormerError: pyarrow is not installed, the file is damaged, a column is missing, exists twice or has a type
            without a text, or a value has no text.
    """
    with _open_parquet(file, name) as (reader, position):
        import pyarrow as pa

        check_columns(columns, reader.schema_arrow.names, name)
        for column in columns:
            _check_type(reader.schema_arrow.field(column).type, column, name)
        for batch in reader.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
            if position.row % (10 * BATCH_ROWS) == 0:
                pa.default_memory_pool().release_unused()  # it would keep tens of megabytes of past batches
            for row in list_rows(batch.select(list(columns))):
                position.row += 1
                try:
                    texts = convert_row(row, columns, missing, optional)
                except HyperFormerError as error:
                    raise HyperFormerError(f"{name}, row {position.row}: {error}.") from None
                yield position.row, texts


def list_text_columns(file: BinaryIO, name: str) -> list[str]:
    """Return the names of the columns whose types have a text.

    Raises:
        HyperFormerError: pyarrow is not installed, or the file is damaged.
    """
    with _open_parquet(file, name) as (reader, _):
        return [field.name for field in reader.schema_arrow if field.name and _has_text(field.type)]


@dataclass
class _Position:
    """Number of the row that was read last."""

    row: int = 0


@contextmanager
def _open_parquet(file: BinaryIO, name: str) -> Iterator[tuple[parquet.ParquetFile, _Position]]:
    """Open a file, and turn errors in reading it into errors that name it and the last row."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise HyperFormerError(
            f"reading {name} requires pyarrow, which is not installed. Install pyarrow, or convert the file to JSONL."
        ) from None
    position = _Position()
    try:
        # Memory-mapping or prefetching would keep a whole row group in memory.
        with parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as reader:
            yield reader, position
    except UnicodeDecodeError:
        raise HyperFormerError(
            f"{name}, after row {position.row}: text that is not UTF-8; expected text in UTF-8. Write the file again."
        ) from None
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the operating system, not of the file
            raise
        if not position.row and "magic bytes" in str(error):
            raise HyperFormerError(
                f"{name} is not a Parquet file, or is incomplete. Copy it again, or correct its suffix."
            ) from None
        raise HyperFormerError(
            f"{name} is damaged after row {position.row} ({first_line(error)}). Copy it again."
        ) from None


def list_rows(table: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table; a number in single precision is the float of its shortest decimal form."""
    import pyarrow as pa

    columns = {}
    for name, values in zip(table.schema.names, table.columns, strict=True):
        if pa.types.is_float32(values.type):
            columns[name] = [None if text is None else float(text) for text in values.cast(pa.string()).to_pylist()]
        else:
            columns[name] = values.to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _has_text(type_: pa.DataType) -> bool:
    """Return whether the values of a type have a text; those of an extension or dictionary are of its inner type."""
    import pyarrow as pa

    inner: Any = type_
    while pa.types.is_dictionary(inner) or isinstance(inner, pa.BaseExtensionType):
        inner = inner.value_type if pa.types.is_dictionary(inner) else inner.storage_type
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    is_number = (pa.types.is_integer, pa.types.is_float32, pa.types.is_float64)
    return any(is_type(inner) for is_type in (*is_text, *is_number, pa.types.is_boolean, pa.types.is_null))


def _check_type(type_: pa.DataType, column: str, name: str) -> None:
    """Refuse a column whose values have no text."""
    if not _has_text(type_):
        raise HyperFormerError(
            f"{name}: the column {column!r} has the type {type_}; expected strings, numbers of 32 or 64 bits, or "
            "booleans. Convert the column to strings."
        )
