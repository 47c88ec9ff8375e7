"""Store the token ids of training rows as Arrow files."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from pyarrow import ipc

from hyperformer.data.storage import Writer, iter_chunks, report_damage

TOKEN_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


def write_tokens(tokens: Mapping[str, Iterable[Mapping[str, Sequence[int]]]]) -> Writer:
    """Return a function that writes token ids into a folder as `<task>.arrow`, an Arrow stream."""

    def write(folder: Path) -> None:
        for task, rows in tokens.items():
            with ipc.new_stream(folder / f"{task}.arrow", TOKEN_SCHEMA) as stream:
                for chunk in iter_chunks(rows, 1000):
                    stream.write_batch(pa.RecordBatch.from_pylist(chunk, TOKEN_SCHEMA))

    return write


def read_tokens(folder: Path, task: str) -> Dataset:
    """Open the token ids that `write_tokens` wrote, memory-mapped.

    Raises:
        HyperFormerError: if the file of the token ids is missing or damaged.
    """
    file = folder / f"{task}.arrow"
    with report_damage(file):
        if not file.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file")
        tokens = Dataset.from_file(str(file))
        if not tokens.data.schema.equals(TOKEN_SCHEMA):
            raise ValueError(f"its columns are {', '.join(tokens.column_names)}")
        tokens.data.validate(full=True)
        return tokens
