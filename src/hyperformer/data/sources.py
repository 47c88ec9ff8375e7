"""Read the rows of a source split: a file in a local folder, or a split of a dataset on the Hub.

A source split is a file such as `<split>.csv` in a folder (`readers.FORMATS`), or the split `<split>` of a dataset on
the Hub. Rows are checked while they are read, and stored as the texts of the columns that the task uses.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import ipc

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import SPLITS
from hyperformer.data.hub import HubSplit
from hyperformer.data.storage import BATCH_ROWS, StoredRows, iter_chunks, open_arrow
from hyperformer.readers import RowFile, TextRow, is_row_file
from hyperformer.settings import DataSettings
from hyperformer.settings.tasks import HALVE, is_held_out
from hyperformer.tasks import LabelError, Task

EMBEDDED = "embedded"
MAX_SHOWN = 20
"""Maximum number of unknown labels, or of files, that an error lists."""
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""The form of the name of a dataset on the Hub."""
URL = re.compile(r"[A-Za-z][\w+.-]*://")


def _resolve_source(name: str, task: Task, settings: DataSettings, embedded: Path) -> tuple[str, str | None]:
    """Return a task's source: a folder or the name of a dataset on the Hub, and the dataset's configuration or None."""
    source = task.settings.source
    path = os.path.expanduser(source.path or settings.source)
    if path == EMBEDDED:
        return str(embedded / (source.name or name)), None
    if Path(path).is_dir():
        return str(Path(path) / source.name if source.name else Path(path)), None
    return path, source.name


def _find_local_file(name: str, path: str, split: str) -> Path | None:
    """Return the file of a split in a local folder, or None if `path` is the name of a dataset on the Hub.

    Raises:
        HyperFormerError: if the folder does not exist, has no file of the split or has several of them, or if `path`
            is a URL, a file or a misspelt folder.
    """
    folder = Path(path)
    _check_folder(name, path)
    if not folder.is_dir() and HUB_NAME.fullmatch(path):
        return None
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    files = [folder / file for file in names if is_row_file(file, split)]
    if len(files) == 1 and not files[0].is_file():
        raise HyperFormerError(
            f"task {name!r}: {files[0]} is a folder or a broken link; expected a file of rows. Replace it by the file."
        )
    if len(files) != 1:
        shard = next((file for file in names if file.startswith(f"{split}-") and is_row_file(file)), None)
        rename = "" if shard is None else f"Rename {shard} to {split}{Path(shard).suffix}. "
        shown = ", ".join([file.name for file in files] or names[:MAX_SHOWN]) or "no files"
        state = f"has {shown}" if folder.is_dir() else "does not exist"
        raise HyperFormerError(
            f"task {name!r}: the folder {folder} {state}; expected one file {split}.csv, .tsv, .jsonl or .parquet, "
            f"plain or .gz. {rename or 'Rename or add the file. '}Or set source.path, or set splits.<split> to another "
            "split, halve_<split>, hold_out_<N> or stratified_<N>."
        )
    return files[0]


def _check_folder(name: str, path: str) -> None:
    """Reject a URL, a file and a misspelt folder; they would be taken for the name of a dataset on the Hub."""
    if URL.match(path):
        raise HyperFormerError(
            f"task {name!r}: the source {path!r} is a URL; expected a local folder, or the name of a dataset on the "
            "Hub such as 'glue' or 'user/name'. Download the files into a folder."
        )
    folder = Path(path)
    if folder.is_file():
        raise HyperFormerError(
            f"task {name!r}: the source {str(folder)!r} is a file; expected a folder with a file for each split, such "
            f"as train.csv. Rename it so, and use {str(folder.parent)!r}."
        )
    similar = None if folder.is_dir() else _find_similar_folder(folder)
    if similar:
        raise HyperFormerError(f"task {name!r}: no folder {str(folder)!r}; did you mean {str(similar)!r}?")


def _find_similar_folder(folder: Path) -> Path | None:
    """Return an existing folder whose path differs from that of a missing folder by a misspelt name."""
    missing = next(path for path in reversed([folder, *folder.parents]) if not path.is_dir())
    parent = missing.parent
    names = sorted(path.name for path in parent.iterdir() if path.is_dir())
    for near in difflib.get_close_matches(missing.name, names, n=3):
        similar = parent / near / folder.relative_to(missing)
        if similar.is_dir() and similar != Path(near):
            return similar
    return None


def check_sources(tasks: Mapping[str, Task], settings: DataSettings) -> None:
    """Check that local folders have a file for every split that a task reads.

    Raises:
        HyperFormerError: if a folder or file is missing, a folder has several files of a split, or a source is a file.
    """
    for name, task in tasks.items():
        list_files(name, task, settings)


def is_embedded(task: Task, settings: DataSettings) -> bool:
    """Return whether a task's rows are those of an embedded task."""
    return (task.settings.source.path or settings.source) == EMBEDDED


def list_files(name: str, task: Task, settings: DataSettings) -> list[Path]:
    """Return the local files that a task's splits are read from; none if the rows are embedded or on the Hub.

    Raises:
        HyperFormerError: if a folder or file is missing, a folder has several files of a split, or a source is a file.
    """
    if is_embedded(task, settings):
        return []
    path, _ = _resolve_source(name, task, settings, Path())
    files = [_find_local_file(name, path, split) for split in source_splits(task)]
    return [file for file in files if file is not None]


def source_splits(task: Task) -> list[str]:
    """Return the source splits that the task's `splits` setting refers to."""
    policy = (getattr(task.settings.splits, split) for split in SPLITS)
    return list(dict.fromkeys(rule.removeprefix(HALVE) for rule in policy if not is_held_out(rule)))


def read_split(name: str, task: Task, settings: DataSettings, embedded: Path, split: str) -> tuple[StoredRows, int]:
    """Read, check and store the rows of a source split.

    Returns:
        The texts of the columns that the task uses, and the number of rows that were left out because a value is null
        or missing (`missing: drop`).

    Raises:
        HyperFormerError: The source cannot be read exactly, has no rows, or has an invalid row; the message names the
            task, the file and the row.
    """
    path, configuration = _resolve_source(name, task, settings, embedded)
    file = _find_local_file(name, path, split)
    columns = list(dict.fromkeys([*task.text_columns, task.settings.label_column]))
    source: RowFile | HubSplit
    if file is not None:
        source = RowFile(file, columns, task.settings.missing, task.settings.source.rows)
    else:
        source = HubSplit(path, configuration, split, task.settings.source, columns, task.settings.missing)
    try:
        rows, dropped = _store_rows(_check_rows(source, task), columns)
        if not len(rows):
            names = " or ".join(map(repr, columns))
            raise HyperFormerError(
                f"{source.path}: a value of {names} is null or missing in each of the {dropped} rows, and "
                "`missing: drop` leaves them out; expected some rows to remain. Fix the file or the columns."
            )
    except HyperFormerError as error:
        raise HyperFormerError(f"task {name!r}: {error}") from None
    return rows, dropped


def _check_rows(source: RowFile | HubSplit, task: Task) -> Iterator[TextRow | None]:
    """Yield the texts of each valid row, and None for a row that is left out; `source.rows` limits the rows.

    Raises:
        HyperFormerError: A row has no text or an invalid label. All unknown labels of a file are reported at once.
    """
    unknown: dict[str, _Unknown] = {}
    for number, texts in source:
        if None in texts:
            yield None
            continue
        try:
            task.make_example(dict(zip(source.columns, texts, strict=True)))
        except LabelError as error:
            unknown.setdefault(error.label, _Unknown(number, error)).rows += 1
        except HyperFormerError as error:
            raise HyperFormerError(f"{source.locate(number)}: {error}") from None
        else:
            yield texts
    if unknown:
        raise HyperFormerError(_describe_unknown_labels(unknown, source, task))


@dataclass
class _Unknown:
    """An unknown label: its first row, the error of that row, and its number of rows."""

    first: int
    error: LabelError
    rows: int = 0


def _describe_unknown_labels(unknown: Mapping[str, _Unknown], source: RowFile | HubSplit, task: Task) -> str:
    most_frequent = sorted(unknown.items(), key=lambda item: (-item[1].rows, item[1].first))
    shown = [
        f"{label!r} ({label_rows.rows} {'rows' if label_rows.rows > 1 else 'row'}, first at {source.unit} "
        f"{label_rows.first})"
        for label, label_rows in most_frequent[:MAX_SHOWN]
    ]
    more = f" and {len(unknown) - MAX_SHOWN} more" if len(unknown) > MAX_SHOWN else ""
    error = most_frequent[0][1].error
    return (
        f"{source.path} has unknown labels in column {task.settings.label_column!r}: {', '.join(shown)}{more}; "
        f"expected one of {error.known}. {error.advice}."
    )


def _store_rows(rows: Iterable[TextRow | None], columns: list[str]) -> tuple[StoredRows, int]:
    """Write rows to a temporary file, which is removed when they are no longer used; count the rows that are None."""
    schema = pa.schema([(column, pa.string()) for column in columns])
    count = dropped = 0
    with tempfile.NamedTemporaryFile(prefix="hyperformer-", suffix=".arrow", delete=False) as sink:
        file = Path(sink.name)
        try:
            with ipc.new_stream(sink, schema) as stream:
                for chunk in iter_chunks(rows, BATCH_ROWS):
                    kept = [texts for texts in chunk if texts is not None]
                    arrays = [pa.array(values, pa.string()) for values in zip(*kept, strict=True)]
                    if kept:
                        stream.write_table(pa.table(arrays, schema=schema))
                    count, dropped = count + len(kept), dropped + len(chunk) - len(kept)
        except BaseException:
            file.unlink()
            raise
    stored = open_arrow(file, schema, count)
    weakref.finalize(stored.read, file.unlink, missing_ok=True)
    return stored, dropped
