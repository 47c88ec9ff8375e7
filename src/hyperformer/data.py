"""Read rows from the Hub or a folder, check and split them, and store the rows and their token ids.

A source split is a file `<split>.parquet`, `<split>.csv` or `<split>.jsonl` in a folder, or the split `<split>` of a
dataset on the Hub.
"""

from __future__ import annotations

import csv
import difflib
import functools
import itertools
import logging
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value, disable_progress_bars, load_dataset
from numpy.typing import NDArray
from pyarrow import ipc, parquet

from hyperformer.config import DataSettings
from hyperformer.tasks import Task
from hyperformer.types import HyperFormerError, Split

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
HALVE = "halve_"  # prefix of a value in `SplitSettings`
HOLD_OUT = "hold_out_"  # prefix of a value in `SplitSettings`
READERS = {"parquet": "parquet", "csv": "csv", "jsonl": "json"}  # file suffix -> builder of `datasets`
BATCH_ROWS = 1000  # rows in memory at once
GROUP_ROWS = 100_000  # maximum number of rows of a Parquet row group
GROUP_BYTES = 1 << 25  # bytes after which a row group ends
DIGEST = np.dtype("S16")  # 16 bytes
TOKEN_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
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


def make_rng(seed: int, *stream: int | str) -> np.random.Generator:
    """Return a random generator that depends only on `seed` and on the numbers and names in `stream`."""
    keys = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in stream]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *keys])))


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


@contextmanager
def _report_damage(file: Path) -> Iterator[None]:
    """Turn an error in reading a stage's output into an error that names the file.

    Raises:
        HyperFormerError: if the file is missing or damaged.
    """
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise HyperFormerError(
            f"{file} cannot be read ({_describe(error)}); expected the file that an earlier stage wrote. Remove it, "
            "then run that stage again."
        ) from None


def read_rows(folder: Path, task: str, split: Split) -> Rows:
    """Read into memory the rows that `write_rows` wrote.

    Raises:
        HyperFormerError: if the file of the rows is missing or damaged; the other readers of this module raise it too.
    """
    file = folder / task / f"{split}.parquet"
    with _report_damage(file):
        return Dataset(parquet.read_table(file))


def stream_rows(folder: Path, task: str, split: Split) -> Iterator[dict[str, Any]]:
    """Yield in order the rows that `write_rows` wrote, with only a few of them in memory."""
    file = folder / task / f"{split}.parquet"
    with _report_damage(file):
        yield from _open_parquet(file)


def read_first_rows(folder: Path, task: str, split: Split, count: int) -> Rows:
    """Read into memory the first `count` rows that `write_rows` wrote, or all rows if there are fewer."""
    file = folder / task / f"{split}.parquet"
    with _report_damage(file):
        rows = _open_parquet(file, count)
        return Dataset(pa.Table.from_batches(rows.iter_batches(), rows.schema))


def sample_rows(folder: Path, task: str, split: Split, count: int, seed: int) -> Rows:
    """Return a random sample of the rows that `write_rows` wrote, in the order of the file.

    With the same seed, a larger sample contains every smaller one.

    Raises:
        HyperFormerError: if there are fewer than `count` rows, or if their file is missing or damaged.
    """
    file = folder / task / f"{split}.parquet"
    with _report_damage(file):
        rows = _open_parquet(file)
    if count > len(rows):
        raise HyperFormerError(
            f"task {task!r} has {len(rows)} {split} rows; expected at least {count}. Use fewer samples."
        )
    indices = make_rng(seed, "samples", task).permutation(len(rows))[:count]
    chosen = rows.select(_mask_of(indices, len(rows)))
    with _report_damage(file):
        return Dataset(pa.Table.from_batches(chosen.iter_batches(), chosen.schema))


def _open_parquet(file: Path, limit: int | None = None) -> StoredRows:
    """Return the rows of a parquet file, or its first `limit` rows."""

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        # Memory-mapping or prefetching would keep a whole row group in memory.
        with parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as reader:
            for batch in reader.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                yield batch.select(columns).cast(pa.schema([schema.field(column) for column in columns]))

    with parquet.ParquetFile(file) as reader:
        schema = Features.from_arrow_schema(reader.schema_arrow).arrow_schema.remove_metadata()
        rows = reader.metadata.num_rows
    return StoredRows(read, schema, np.ones(rows if limit is None else min(rows, limit), bool))


def _open_arrow(files: Sequence[str], schema: pa.Schema, rows: int) -> StoredRows:
    """Return the rows of files that are Arrow streams, one file after another."""

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for file in files:
            # Not memory-mapped: pages that only this process maps count as its memory.
            with pa.OSFile(file) as source, ipc.open_stream(source) as stream:
                yield from stream

    return StoredRows(read, schema.remove_metadata(), np.ones(rows, bool))


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
            for split in _source_splits(task):
                _find_local_file(name, path, configuration, split)


def _source_splits(task: Task) -> list[str]:
    """Return the source splits that the task's `splits` setting refers to."""
    policy = (getattr(task.settings.splits, split) for split in SPLITS)
    return list(dict.fromkeys(rule.removeprefix(HALVE) for rule in policy if not rule.startswith(HOLD_OUT)))


def _read_split(name: str, task: Task, settings: DataSettings, embedded: Path, split: str) -> tuple[StoredRows, str]:
    """Return the rows of a source split, and the name of its file or of its Hub split for messages."""
    path, configuration = _resolve_source(name, task, settings, embedded)
    limit = task.settings.source.rows
    file = _find_local_file(name, path, configuration, split)
    if file is not None:
        disable_progress_bars()  # reading a local file takes no time
        try:
            if file.suffix == ".parquet":
                return _open_parquet(file, limit), str(file)
            # Large batches, because `datasets` maps a page of each when it opens its copy.
            options = {"data_files": str(file), "writer_batch_size": 10 * BATCH_ROWS, **_csv_options(file)}
            return _load(limit, READERS[file.suffix[1:]], split="train", **options), str(file)
        except Exception as error:
            raise _unreadable_error(name, str(file), error) from error
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
    return _open_arrow([cached["filename"] for cached in rows.cache_files], rows.data.schema, len(rows))


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
    spooled = _open_arrow([str(file)], schema, rows)
    weakref.finalize(spooled.read, file.unlink, missing_ok=True)
    return spooled


def _unreadable_error(name: str, file: str, error: BaseException) -> HyperFormerError:
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
    """Return the first line of an error's message, or the error's type if the message is empty.

    If the error is that a file has no data, return that it has no rows.
    """
    message = (str(error).splitlines() or [type(error).__name__])[0]
    return "it has no rows" if "corresponds to no data" in message else message


def _check_rows(name: str, task: Task, rows: StoredRows, file: str) -> StoredRows:
    """Check every row, and return the columns that the task uses.

    Raises:
        HyperFormerError: if a column is missing, there are no rows, a row has no text or an invalid label, or the file
            is damaged. The message names the file and, for an invalid row, the number of the row.
    """
    columns = list(dict.fromkeys([*task.text_columns, task.settings.label_column]))
    missing = [column for column in columns if column not in rows.schema.names]
    if missing:
        single = rows.schema.names[0] if file.endswith(".csv") and len(rows.schema.names) == 1 else ""
        separator = next((mark for mark in ";\t|" if mark in single), None)
        advice = f"Separate columns with commas, not {separator!r}." if separator else "Fix `text` or `label_column`."
        raise HyperFormerError(
            f"task {name!r}: {file} has no column {missing[0]!r}; its columns are {', '.join(rows.schema.names)}. "
            f"{advice}"
        )
    if not len(rows):
        raise HyperFormerError(f"task {name!r}: {file} has no rows; expected at least one. Use another source.")
    rows = rows.select_columns(columns)
    try:
        for number, row in enumerate(rows, start=1):
            try:
                task.make_example(row)
            except HyperFormerError as error:
                raise HyperFormerError(f"task {name!r}: {file}, row {number}: {error}") from None
    except (OSError, pa.ArrowException) as error:
        raise _unreadable_error(name, file, error) from error
    return rows


def _select_half(rows: StoredRows, half: int, seed: int, name: str) -> StoredRows:
    order = make_rng(seed, "halve", name).permutation(len(rows))
    middle = len(rows) // 2
    return rows.select(_mask_of(order[:middle] if half == 0 else order[middle:], len(rows)))


def _mask_of(indices: NDArray[np.int64], rows: int) -> NDArray[np.bool_]:
    """Return a mask of `rows` values that is true at the indices."""
    mask = np.zeros(rows, bool)
    mask[indices] = True
    return mask


def _build_splits(name: str, task: Task, settings: DataSettings, embedded: Path, seed: int) -> dict[Split, StoredRows]:
    """Return the three splits as the task's `splits` setting defines them, before duplicate rows are removed."""
    policy = {split: getattr(task.settings.splits, split) for split in SPLITS}
    halved = {rule.removeprefix(HALVE) for rule in policy.values() if rule.startswith(HALVE)}
    held = [int(rule.removeprefix(HOLD_OUT)) for rule in policy.values() if rule.startswith(HOLD_OUT)]

    @functools.cache
    def read(split: str) -> StoredRows:
        rows, file = _read_split(name, task, settings, embedded, split)
        return _check_rows(name, task, rows, file)

    train = _select_half(read(policy["train"]), 0, seed, name) if policy["train"] in halved else read(policy["train"])
    order = make_rng(seed, "hold out", name).permutation(len(train))
    if sum(held) >= len(train):
        raise HyperFormerError(
            f"task {name!r}: hold_out_{held[0]} uses all of the {len(train)} training rows; expected some to remain. "
            "Hold out fewer rows."
        )
    splits: dict[Split, StoredRows] = {"train": train.select(_mask_of(order[sum(held) :], len(train)))}
    for split in SPLITS[1:]:
        rule = policy[split]
        if rule.startswith(HOLD_OUT):
            indices = order[: held[0]] if split == "validation" else order[sum(held) - held[-1] : sum(held)]
            splits[split] = train.select(_mask_of(indices, len(train)))
        elif rule.startswith(HALVE):
            splits[split] = _select_half(read(rule.removeprefix(HALVE)), 1, seed, name)
        else:
            splits[split] = _select_half(read(rule), 0, seed, name) if rule in halved else read(rule)
    return splits


def prepare(
    tasks: Mapping[str, Task], settings: DataSettings, embedded: Path, seed: int
) -> tuple[dict[str, dict[str, StoredRows]], dict[str, Any]]:
    """Return the checked splits of every task; no two splits of a task have rows with the same texts.

    Rows with the same texts as a test row are removed from validation. Rows with the same texts as a validation or test
    row are removed from train. If a task has several text columns, all of them must be equal.

    Args:
        tasks: the tasks by name.
        settings: the default source of rows.
        embedded: the folder of the embedded language's rows, for the tasks that use it.
        seed: determines which rows are held out, and how splits are halved.

    Returns:
        task → split → rows, and task → split → how many rows were kept (`rows`) and `removed`.

    Raises:
        HyperFormerError: if the rows of a source cannot be read or are invalid, or if no row of a split is left.
    """
    rows: dict[str, dict[str, StoredRows]] = {}
    counts: dict[str, Any] = {}
    for name, task in tasks.items():
        splits = _build_splits(name, task, settings, embedded, seed)
        later = np.zeros(0, DIGEST)  # sorted digests of the splits after this one
        kept: dict[str, StoredRows] = {}
        counts[name] = {}
        for split in reversed(SPLITS):
            duplicated = [np.zeros(0, bool), *(_is_among(later, digests) for digests in _digests(splits[split], task))]
            kept[split] = splits[split].select(~np.concatenate(duplicated))
            if split != "train":
                later = np.sort(np.concatenate([later, *_digests(splits[split], task)]))
            counts[name][split] = {"rows": len(kept[split]), "removed": len(splits[split]) - len(kept[split])}
            if not len(kept[split]):
                raise HyperFormerError(
                    f"task {name!r}: every row of {split} is also in a later split; expected disjoint splits. "
                    "Use other rows."
                )
        rows[name] = {split: kept[split] for split in SPLITS}
        log.info("%s: %s", name, ", ".join(f"{split} {len(kept[split])}" for split in SPLITS))
    return rows, counts


def _digests(rows: StoredRows, task: Task) -> Iterator[NDArray[np.bytes_]]:
    """Yield a digest of each row's texts, batch by batch."""
    for batch in rows.select_columns(task.text_columns).iter_batches():
        texts = (repr(list(row.values())).encode() for row in batch.to_pylist())  # quotes keep lists distinct
        yield np.array([blake2b(text, digest_size=DIGEST.itemsize).digest() for text in texts], DIGEST)


def _is_among(known: NDArray[np.bytes_], digests: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Return a mask of the digests that are among the known ones, which are sorted."""
    return np.searchsorted(known, digests, "left") < np.searchsorted(known, digests, "right")


def stream_training_texts(rows: Path, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Yield every text of every task's training rows."""
    for name, task in tasks.items():
        for row in stream_rows(rows, name, "train"):
            yield from (str(row[column]) for column in task.text_columns)


def write_tokens(tokens: Mapping[str, Iterable[Mapping[str, Sequence[int]]]]) -> Writer:
    """Return a function that writes token ids into a folder as `<task>.arrow`, an Arrow stream."""

    def write(folder: Path) -> None:
        for task, rows in tokens.items():
            with ipc.new_stream(folder / f"{task}.arrow", TOKEN_SCHEMA) as stream:
                for chunk in _iter_chunks(rows, 1000):
                    stream.write_batch(pa.RecordBatch.from_pylist(chunk, TOKEN_SCHEMA))

    return write


def _iter_chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def read_tokens(folder: Path, task: str) -> Dataset:
    """Open the token ids that `write_tokens` wrote, memory-mapped.

    Raises:
        HyperFormerError: if the file of the token ids is missing or damaged.
    """
    file = folder / f"{task}.arrow"
    with _report_damage(file):
        if not file.is_file():
            raise FileNotFoundError("no such file")
        tokens = Dataset.from_file(str(file))
        if not tokens.data.schema.equals(TOKEN_SCHEMA):
            raise ValueError(f"its columns are {', '.join(tokens.column_names)}")
        tokens.data.validate(full=True)
        return tokens


def collect_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema | None = None) -> Rows:
    """Collect rows into one table in memory; there must be at least one row."""
    return Dataset(pa.concat_tables(pa.Table.from_pylist(chunk, schema) for chunk in _iter_chunks(rows, 10_000)))
