"""Read the rows of a source split: a file in a local folder, or a split of a dataset on the Hub.

A source split is a file `<split>.parquet`, `<split>.csv` or `<split>.jsonl` in a folder, or the split `<split>` of a
dataset on the Hub.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Features, Value, disable_progress_bars, load_dataset
from pyarrow import ipc

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.core.types import SPLITS
from hyperformer.data.storage import BATCH_ROWS, StoredRows, open_arrow, open_parquet
from hyperformer.settings import DataSettings
from hyperformer.settings.tasks import HALVE, HOLD_OUT
from hyperformer.tasks import Task

EMBEDDED = "embedded"
READERS = {"parquet": "parquet", "csv": "csv", "jsonl": "json"}  # file suffix -> builder of `datasets`


def _resolve_source(name: str, task: Task, settings: DataSettings, embedded: Path) -> tuple[str, str | None]:
    """Return a task's source: a folder or the name of a dataset on the Hub, and the dataset's configuration or None."""
    source = task.settings.source
    path = source.path or settings.source
    if path == EMBEDDED:
        return str(embedded / (source.name or name)), None
    if Path(path).is_dir():
        return str(Path(path) / source.name if source.name else Path(path)), None
    return path, source.name


def _find_local_file(name: str, path: str, configuration: str | None, split: str) -> Path | None:
    """Return the file of a split in a local folder, or None if `path` is the name of a dataset on the Hub.

    Raises:
        HyperFormerError: if the folder does not exist, has no file of the split or has several of them, or if `path`
            is a file or a misspelt folder.
    """
    folder = Path(path)
    _check_folder(name, folder)
    if not folder.is_dir() and (configuration is not None or not folder.is_absolute()):
        return None
    files = [folder / f"{split}.{suffix}" for suffix in READERS if (folder / f"{split}.{suffix}").is_file()]
    if len(files) != 1:
        names = ", ".join(sorted(file.name for file in folder.glob("*"))) or "no files"
        state = f"has {names}" if folder.is_dir() else "does not exist"
        raise HyperFormerError(
            f"task {name!r}: the folder {folder} {state}; expected one of {split}.parquet, {split}.csv, {split}.jsonl. "
            "Add the file, set source.path, or set splits.<split> to another split, halve_<split> or hold_out_<N>."
        )
    return files[0]


def _check_folder(name: str, folder: Path) -> None:
    """Reject a file or a misspelt folder; either would otherwise be taken for the name of a dataset on the Hub."""
    if folder.is_file():
        raise HyperFormerError(
            f"task {name!r}: the source {str(folder)!r} is a file; expected a folder with train.csv, train.parquet or "
            f"train.jsonl. Use {str(folder.parent)!r}."
        )
    parent = folder.parent
    if folder.is_dir() or parent == Path() or not parent.is_dir():
        return
    names = sorted(path.name for path in parent.iterdir() if path.is_dir())
    if near := difflib.get_close_matches(folder.name, names, n=1):
        raise HyperFormerError(f"task {name!r}: no folder {str(folder)!r}; did you mean {str(parent / near[0])!r}?")


def check_sources(tasks: Mapping[str, Task], settings: DataSettings) -> None:
    """Check that local folders have a file for every split that a task reads.

    Raises:
        HyperFormerError: if a folder or file is missing, a folder has several files of a split, or a source is a file.
    """
    for name, task in tasks.items():
        if (task.settings.source.path or settings.source) != EMBEDDED:
            path, configuration = _resolve_source(name, task, settings, Path())
            for split in source_splits(task):
                _find_local_file(name, path, configuration, split)


def source_splits(task: Task) -> list[str]:
    """Return the source splits that the task's `splits` setting refers to."""
    policy = (getattr(task.settings.splits, split) for split in SPLITS)
    return list(dict.fromkeys(rule.removeprefix(HALVE) for rule in policy if not rule.startswith(HOLD_OUT)))


def read_split(name: str, task: Task, settings: DataSettings, embedded: Path, split: str) -> tuple[StoredRows, str]:
    """Return the rows of a source split, and the name of its file or of its Hub split for messages."""
    path, configuration = _resolve_source(name, task, settings, embedded)
    limit = task.settings.source.rows
    file = _find_local_file(name, path, configuration, split)
    if file is not None:
        disable_progress_bars()  # reading a local file takes no time
        try:
            if file.suffix == ".parquet":
                return open_parquet(file, limit), str(file)
            # Large batches, because `datasets` maps a page of each when it opens its copy.
            options = {"data_files": str(file), "writer_batch_size": 10 * BATCH_ROWS, **_csv_options(file)}
            return _load(limit, READERS[file.suffix[1:]], split="train", **options), str(file)
        except Exception as error:
            raise unreadable_error(name, str(file), error) from error
    try:
        rows = _load(limit, path, configuration, split=split, revision=task.settings.source.revision)
    except Exception as error:
        raise HyperFormerError(
            f"task {name!r}: cannot load split {split!r} of {path!r}, configuration {configuration!r} "
            f"({_describe(error)}); expected a local folder, or a dataset on the Hub or in its cache. Set data.source "
            "or the task's source."
        ) from error
    return rows, f"{path}/{configuration or 'default'}/{split}"


def _load(limit: int | None, *source: str | None, split: str, **options: Any) -> StoredRows:
    """Load all rows through the cache of `datasets`; if `limit` is set, stream only the first rows."""
    if limit is not None:
        stream = load_dataset(*source, split=split, streaming=True, **options)
        return _spool(stream.with_format("arrow").iter(min(limit, BATCH_ROWS)), limit)
    rows = load_dataset(*source, split=split, keep_in_memory=False, **options)
    if "[" in split:  # a slice of the cached files
        return _spool(rows.with_format("arrow").iter(BATCH_ROWS), len(rows))
    return open_arrow([cached["filename"] for cached in rows.cache_files], rows.data.schema, len(rows))


def _spool(tables: Iterator[pa.Table], limit: int) -> StoredRows:
    """Copy the first `limit` rows to a temporary file, and return the rows of that file.

    The file is removed when the rows are no longer used. It is not kept for later runs, because the source may
    have changed by then.
    """
    first = next(tables, None)
    if first is None:
        raise ValueError("it has no rows")
    schema, rows = first.schema.remove_metadata(), 0
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".arrow", delete=False) as sink:
        file = Path(sink.name)
        try:
            with ipc.new_stream(sink, schema) as stream:
                for table in itertools.chain([first], tables):
                    head = table.select(schema.names).cast(schema).slice(0, limit - rows)
                    stream.write_table(head, BATCH_ROWS)
                    rows += head.num_rows
                    if rows == limit:  # `take` would fetch one more table first
                        break
        except BaseException:
            file.unlink()
            raise
    spooled = open_arrow([str(file)], schema, rows)
    weakref.finalize(spooled.read, file.unlink, missing_ok=True)
    return spooled


def unreadable_error(name: str, file: str, error: BaseException) -> HyperFormerError:
    """Return the error for a file of a task's source that cannot be read."""
    cause = error.__cause__ or error
    advice = "Save it as UTF-8." if isinstance(cause, UnicodeDecodeError) else "Fix the file."
    return HyperFormerError(f"task {name!r}: {file} cannot be read ({_describe(cause)}). {advice}")


def _csv_options(file: Path) -> dict[str, Any]:
    """Return options to read every value of a CSV file as text; for other files, return none.

    With these options, 007 is not a number, and None is not a missing value.
    """
    if file.suffix != ".csv":
        return {}
    encoding = "utf-8-sig"  # spreadsheets write a byte order mark
    with file.open(encoding=encoding, newline="") as stream:
        header = next(csv.reader(stream), [])
    features = Features({column: Value("string") for column in header})
    return {"features": features, "na_filter": False, "encoding": encoding}


def _describe(error: BaseException) -> str:
    """Return the first line of an error's message; if the error is that a file has no data, that it has no rows."""
    message = first_line(error)
    return "it has no rows" if "corresponds to no data" in message else message
