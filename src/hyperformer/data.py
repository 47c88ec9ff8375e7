"""Rows: from a hub, a folder or the embedded language to checked, disjoint splits, and to token ids.

A split is a folder's file `<split>.parquet`, `.csv` or `.jsonl`, or a hub data set's split of that name.
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
HALVE, HOLD_OUT = "halve_", "hold_out_"  # prefixes of split policies
READERS = {"parquet": "parquet", "csv": "csv", "jsonl": "json"}
BATCH = 1000  # rows in memory at once
GROUP_ROWS, GROUP_BYTES = 100_000, 1 << 25  # where a row group of a file ends
DIGEST = np.dtype("S16")
TOKENS = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
Rows: TypeAlias = Dataset
Writer = Callable[[Path], None]


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows that stay in their files, which are read anew, in order and batch by batch, whenever rows are asked for.

    Attributes:
        read: the batches of the files, with at least the columns that are named.
        schema: the columns of these rows.
        kept: which rows of the files these are; rows after its end are not.
    """

    read: Callable[[list[str]], Iterator[pa.RecordBatch]]
    schema: pa.Schema
    kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches():
            yield from batch.to_pylist()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in order, a few at a time."""
        at = 0
        for number, batch in enumerate(self.read(self.schema.names)):
            if number % 10 == 0:
                pa.default_memory_pool().release_unused()  # it would keep tens of megabytes that batches leave
            kept = self.kept[at : at + batch.num_rows]
            at += batch.num_rows
            if kept.any():
                yield batch.select(self.schema.names).slice(0, len(kept)).filter(pa.array(kept))
            if at >= len(self.kept):
                return

    def columns(self, names: list[str]) -> StoredRows:
        """Some of the columns."""
        return replace(self, schema=pa.schema([self.schema.field(name) for name in names]))

    def select(self, chosen: NDArray[np.bool_]) -> StoredRows:
        """Those of the rows where `chosen` is true."""
        kept = self.kept.copy()
        kept[self.kept] = chosen
        return replace(self, kept=kept)


def generator(seed: int, *stream: int | str) -> np.random.Generator:
    """Random numbers that depend on the seed and the stream's numbers and names only."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


def write_rows(rows: Mapping[str, Mapping[str, Rows | StoredRows]]) -> Writer:
    """Writes rows as `<task>/<split>.parquet`."""

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
        return rows.schema, rows.batches()
    tables = rows.with_format("arrow")
    return tables[:0].schema.remove_metadata(), (
        batch.replace_schema_metadata() for table in tables.iter(BATCH) for batch in table.to_batches()
    )


def _row_groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of `GROUP_ROWS` rows, or fewer where their texts are long."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            table = pa.Table.from_batches(waiting, schema)
            yield table.slice(0, GROUP_ROWS)
            waiting = table.slice(GROUP_ROWS).to_batches()
            rows, size = sum(batch.num_rows for batch in waiting), sum(batch.nbytes for batch in waiting)
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


@contextmanager
def _undamaged(file: Path) -> Iterator[None]:
    """Refuse a file of the project's data that cannot be read.

    Raises:
        HyperFormerError: it is missing or damaged.
    """
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise HyperFormerError(
            f"{file} cannot be read ({_reason(error)}); expected the file that an earlier stage wrote. Remove it, then "
            "run that stage again."
        ) from None


def read_rows(folder: Path, task: str, split: Split) -> Rows:
    """Read the rows that `write_rows` wrote into memory.

    Raises:
        HyperFormerError: their file is missing or damaged, as for every reader below.
    """
    file = folder / task / f"{split}.parquet"
    with _undamaged(file):
        return Dataset(parquet.read_table(file))


def stream_rows(folder: Path, task: str, split: Split) -> Iterator[dict[str, Any]]:
    """Read the rows that `write_rows` wrote in order, a few of them in memory."""
    file = folder / task / f"{split}.parquet"
    with _undamaged(file):
        yield from _parquet_rows(file)


def first_rows(folder: Path, task: str, split: Split, count: int) -> Rows:
    """Read the first `count` of the rows that `write_rows` wrote into memory; all where they are fewer."""
    file = folder / task / f"{split}.parquet"
    with _undamaged(file):
        rows = _parquet_rows(file, count)
        return Dataset(pa.Table.from_batches(rows.batches(), rows.schema))


def drawn_rows(folder: Path, task: str, split: Split, count: int, seed: int) -> Rows:
    """`count` of the rows that `write_rows` wrote, in memory; those of a smaller count are among them.

    Raises:
        HyperFormerError: there are fewer.
    """
    file = folder / task / f"{split}.parquet"
    with _undamaged(file):
        rows = _parquet_rows(file)
    if count > len(rows):
        raise HyperFormerError(f"task {task!r} has {len(rows)} rows of {split}, expected {count}; take fewer samples")
    drawn = generator(seed, "samples", task).permutation(len(rows))[:count]
    chosen = rows.select(_among(drawn, len(rows)))
    with _undamaged(file):
        return Dataset(pa.Table.from_batches(chosen.batches(), chosen.schema))


def _parquet_rows(file: Path, most: int | None = None) -> StoredRows:
    """The rows of a parquet file, or the first of them."""

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        # Neither mapped nor read ahead: both would leave a whole row group in memory.
        with parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as opened:
            for batch in opened.iter_batches(BATCH, columns=columns, use_threads=False):
                yield batch.select(columns).cast(pa.schema([schema.field(column) for column in columns]))

    with parquet.ParquetFile(file) as opened:
        schema = Features.from_arrow_schema(opened.schema_arrow).arrow_schema.remove_metadata()
        rows = opened.metadata.num_rows
    return StoredRows(read, schema, np.ones(rows if most is None else min(rows, most), bool))


def _arrow_rows(files: Sequence[str], schema: pa.Schema, rows: int) -> StoredRows:
    """The rows of Arrow streams, one after another."""

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for file in files:
            # Not mapped, for pages of a file that one process alone has mapped count as its own memory.
            with pa.OSFile(file) as opened, ipc.open_stream(opened) as stream:
                yield from stream

    return StoredRows(read, schema.remove_metadata(), np.ones(rows, bool))


def _resolved(name: str, task: Task, settings: DataSettings, embedded: Path) -> tuple[str, str | None]:
    """(folder or hub name, hub configuration or None) of a task."""
    source = task.settings.source
    path = source.path or settings.source
    if path == EMBEDDED:
        return str(embedded / (source.name or name)), None
    if Path(path).is_dir():
        return str(Path(path) / source.name if source.name else Path(path)), None
    return path, source.name


def _local_file(name: str, path: str, configuration: str | None, split: str) -> Path | None:
    """The file of a split in a local folder; None where `path` is a hub name.

    Raises:
        HyperFormerError: the folder has no file of that split, or several; or `path` is a file, or a folder's misspelt.
    """
    folder = Path(path)
    _check_folder(name, folder)
    if not folder.is_dir() and (configuration is not None or not folder.is_absolute()):
        return None
    files = [folder / f"{split}.{ending}" for ending in READERS if (folder / f"{split}.{ending}").is_file()]
    if len(files) != 1:
        got = ", ".join(sorted(file.name for file in folder.glob("*"))) if folder.is_dir() else "no such folder"
        raise HyperFormerError(
            f"task {name!r}: expected one of {split}.parquet, {split}.csv, {split}.jsonl in {folder}, got {got}; "
            "put the file there, set source.path, or set splits.<split> to another split, halve_<split> or hold_out_<N>"
        )
    return files[0]


def _check_folder(name: str, folder: Path) -> None:
    """Sees to it that a path is not asked of the hub where a folder beside it was meant."""
    if folder.is_file():
        raise HyperFormerError(
            f"task {name!r}: the source {str(folder)!r} is a file, expected the folder that holds train.csv (or "
            f".parquet, .jsonl); name {str(folder.parent)!r}"
        )
    beside = folder.parent
    if folder.is_dir() or beside == Path() or not beside.is_dir():
        return
    names = sorted(one.name for one in beside.iterdir() if one.is_dir())
    if near := difflib.get_close_matches(folder.name, names, n=1):
        raise HyperFormerError(f"task {name!r}: no folder {str(folder)!r}; did you mean {str(beside / near[0])!r}?")


def check_sources(tasks: Mapping[str, Task], settings: DataSettings) -> None:
    """Sees to it, before any work, that local folders hold a file for every split that is asked for.

    Raises:
        HyperFormerError: one does not.
    """
    for name, task in tasks.items():
        if (task.settings.source.path or settings.source) != EMBEDDED:
            path, configuration = _resolved(name, task, settings, Path())
            for split in _own_splits(task):
                _local_file(name, path, configuration, split)


def _own_splits(task: Task) -> list[str]:
    """The splits of its source that a task's policy reads."""
    policy = (getattr(task.settings.splits, split) for split in SPLITS)
    return list(dict.fromkeys(source.removeprefix(HALVE) for source in policy if not source.startswith(HOLD_OUT)))


def _read(name: str, task: Task, settings: DataSettings, embedded: Path, split: str) -> tuple[StoredRows, str]:
    """The rows of one of the source's own splits, and the name of their file for messages."""
    path, configuration = _resolved(name, task, settings, embedded)
    most = task.settings.source.rows
    file = _local_file(name, path, configuration, split)
    if file is not None:
        disable_progress_bars()  # a local file is read at once
        try:
            if file.suffix == ".parquet":
                return _parquet_rows(file, most), str(file)
            # Large batches, for `datasets` maps a page of each when it opens its copy.
            options = {"data_files": str(file), "writer_batch_size": 10 * BATCH, **_options(file)}
            return _loaded(most, READERS[file.suffix[1:]], split="train", **options), str(file)
        except Exception as error:
            raise _unreadable(name, str(file), error) from error
    try:
        rows = _loaded(most, path, configuration, split=split, revision=task.settings.source.revision)
    except Exception as error:
        raise HyperFormerError(
            f"task {name!r}: no rows of split {split!r} from {path!r}, {configuration!r}: neither a folder nor "
            f"a data set that the hub or its cache gives ({_reason(error)}); set data.source or the task's source"
        ) from error
    return rows, f"{path}/{configuration or 'default'}/{split}"


def _loaded(most: int | None, *source: str | None, split: str, **options: Any) -> StoredRows:
    """What `load_dataset` finds: all rows, from its cache; or the first so many, streamed."""
    if most is not None:
        stream = load_dataset(*source, split=split, streaming=True, **options)
        return _set_down(stream.with_format("arrow").iter(min(most, BATCH)), most)
    rows = load_dataset(*source, split=split, keep_in_memory=False, **options)
    if "[" in split:  # part of a split, and so of its files
        return _set_down(rows.with_format("arrow").iter(BATCH), len(rows))
    return _arrow_rows([cached["filename"] for cached in rows.cache_files], rows.data.schema, len(rows))


def _set_down(tables: Iterator[pa.Table], most: int) -> StoredRows:
    """The first rows that come, in a file that goes when they are no longer used: no later run finds it grown stale."""
    first = next(tables, None)
    if first is None:
        raise ValueError("it holds no rows")
    schema, rows = first.schema.remove_metadata(), 0
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".arrow", delete=False) as opened:
        file = Path(opened.name)
        try:
            with ipc.new_stream(opened, schema) as stream:
                for table in itertools.chain([first], tables):
                    wanted = table.select(schema.names).cast(schema).slice(0, most - rows)
                    stream.write_table(wanted, BATCH)
                    rows += wanted.num_rows
                    if rows == most:  # `take` would fetch one part more before it sees that
                        break
        except BaseException:
            file.unlink()
            raise
    found = _arrow_rows([str(file)], schema, rows)
    weakref.finalize(found.read, file.unlink, missing_ok=True)
    return found


def _unreadable(name: str, file: str, error: BaseException) -> HyperFormerError:
    cause = error.__cause__ or error
    mend = "save it as UTF-8" if isinstance(cause, UnicodeDecodeError) else "repair the file"
    return HyperFormerError(f"task {name!r}: {file} cannot be read ({_reason(cause)}); {mend}")


def _options(file: Path) -> dict[str, Any]:
    """A CSV's values stay the text that they are: 007 is no number, and None no gap."""
    if file.suffix != ".csv":
        return {}
    encoding = "utf-8-sig"  # spreadsheets write a mark before the first column's name
    with file.open(encoding=encoding, newline="") as opened:
        header = next(csv.reader(opened), [])
    features = Features({column: Value("string") for column in header})
    return {"features": features, "na_filter": False, "encoding": encoding}


def _reason(error: BaseException) -> str:
    """The first line of an error, or its kind where it says nothing."""
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return "it holds no rows" if "corresponds to no data" in said else said


def _checked(name: str, task: Task, rows: StoredRows, file: str) -> StoredRows:
    """The columns that the task uses, each row valid.

    Raises:
        HyperFormerError: a column is missing, a row lacks a text or has a foreign label, with file and row, or the file
            is damaged.
    """
    wanted = list(dict.fromkeys([*task.text_columns, task.settings.label_column]))
    missing = [column for column in wanted if column not in rows.schema.names]
    if missing:
        got = ", ".join(rows.schema.names)
        single = rows.schema.names[0] if file.endswith(".csv") and len(rows.schema.names) == 1 else ""
        separator = next((mark for mark in ";\t|" if mark in single), None)
        mend = (
            f"save it with commas between columns, not {separator!r}" if separator else "mend `text` or `label_column`"
        )
        raise HyperFormerError(f"task {name!r}: {file} has no column {missing[0]!r}, got {got}; {mend}")
    if not len(rows):
        raise HyperFormerError(f"task {name!r}: {file} holds no rows; expected at least one")
    rows = rows.columns(wanted)
    try:
        for number, row in enumerate(rows, start=1):
            try:
                task.example(row)
            except HyperFormerError as error:
                raise HyperFormerError(f"task {name!r}: {file}, row {number}: {error}") from None
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(name, file, error) from error
    return rows


def _halves(rows: StoredRows, half: int, seed: int, name: str) -> StoredRows:
    order = generator(seed, "halve", name).permutation(len(rows))
    cut = len(rows) // 2
    return rows.select(_among(order[:cut] if half == 0 else order[cut:], len(rows)))


def _among(numbers: NDArray[np.int64], rows: int) -> NDArray[np.bool_]:
    """Which of so many rows are among the numbered ones."""
    chosen = np.zeros(rows, bool)
    chosen[numbers] = True
    return chosen


def _splits(name: str, task: Task, settings: DataSettings, embedded: Path, seed: int) -> dict[Split, StoredRows]:
    """The three splits by the task's policy, before rows that stand twice are taken out."""
    policy = {split: getattr(task.settings.splits, split) for split in SPLITS}
    halved = {source.removeprefix(HALVE) for source in policy.values() if source.startswith(HALVE)}
    held = [int(source.removeprefix(HOLD_OUT)) for source in policy.values() if source.startswith(HOLD_OUT)]

    @functools.cache
    def own(split: str) -> StoredRows:
        rows, file = _read(name, task, settings, embedded, split)
        return _checked(name, task, rows, file)

    train = _halves(own(policy["train"]), 0, seed, name) if policy["train"] in halved else own(policy["train"])
    order = generator(seed, "hold out", name).permutation(len(train))
    if sum(held) >= len(train):
        raise HyperFormerError(
            f"task {name!r}: hold_out_{held[0]} takes all of the {len(train)} training rows; hold out fewer"
        )
    found: dict[Split, StoredRows] = {"train": train.select(_among(order[sum(held) :], len(train)))}
    for split in SPLITS[1:]:
        source = policy[split]
        if source.startswith(HOLD_OUT):
            taken = order[: held[0]] if split == "validation" else order[sum(held) - held[-1] : sum(held)]
            found[split] = train.select(_among(taken, len(train)))
        elif source.startswith(HALVE):
            found[split] = _halves(own(source.removeprefix(HALVE)), 1, seed, name)
        else:
            found[split] = _halves(own(source), 0, seed, name) if source in halved else own(source)
    return found


def prepare(
    tasks: Mapping[str, Task], settings: DataSettings, embedded: Path, seed: int
) -> tuple[dict[str, dict[str, StoredRows]], dict[str, Any]]:
    """The checked splits of every task, disjoint by content.

    A row whose texts also stand in test is taken out of validation, one whose texts stand in either out of train.

    Args:
        embedded: the folder of the embedded language's rows, for the tasks that use it.
    Returns:
        task → split → rows, and task → split → counts of rows kept and taken out.
    """
    rows: dict[str, dict[str, StoredRows]] = {}
    counts: dict[str, Any] = {}
    for name, task in tasks.items():
        found = _splits(name, task, settings, embedded, seed)
        later = np.zeros(0, DIGEST)  # of the splits after this one, sorted
        kept: dict[str, StoredRows] = {}
        counts[name] = {}
        for split in reversed(SPLITS):
            stands = [np.zeros(0, bool), *(_stand_in(later, digests) for digests in _digests(found[split], task))]
            kept[split] = found[split].select(~np.concatenate(stands))
            if split != "train":
                later = np.sort(np.concatenate([later, *_digests(found[split], task)]))
            counts[name][split] = {"rows": len(kept[split]), "removed": len(found[split]) - len(kept[split])}
            if not len(kept[split]):
                raise HyperFormerError(
                    f"task {name!r}: every row of {split} also stands in a later split; give other rows"
                )
        rows[name] = {split: kept[split] for split in SPLITS}
        log.info("%s: %s", name, ", ".join(f"{split} {len(kept[split])}" for split in SPLITS))
    return rows, counts


def _digests(rows: StoredRows, task: Task) -> Iterator[NDArray[np.bytes_]]:
    """What stands for each row's texts, batch by batch."""
    for batch in rows.columns(task.text_columns).batches():
        texts = (repr(list(row.values())).encode() for row in batch.to_pylist())  # quoted: no two lists read alike
        yield np.array([blake2b(text, digest_size=DIGEST.itemsize).digest() for text in texts], DIGEST)


def _stand_in(known: NDArray[np.bytes_], digests: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Which of the digests are among the sorted known ones."""
    return np.searchsorted(known, digests, "left") < np.searchsorted(known, digests, "right")


def training_texts(rows: Path, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Every text of every task's training rows."""
    for name, task in tasks.items():
        for row in stream_rows(rows, name, "train"):
            yield from (str(row[column]) for column in task.text_columns)


def write_tokens(tokens: Mapping[str, Iterable[Mapping[str, Sequence[int]]]]) -> Writer:
    """Writes the token ids of training rows as `<task>.arrow`, an Arrow stream."""

    def write(folder: Path) -> None:
        for task, rows in tokens.items():
            with ipc.new_stream(folder / f"{task}.arrow", TOKENS) as stream:
                for chunk in _chunks(rows, 1000):
                    stream.write_batch(pa.RecordBatch.from_pylist(chunk, TOKENS))

    return write


def _chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
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
        HyperFormerError: their file is missing or damaged.
    """
    file = folder / f"{task}.arrow"
    with _undamaged(file):
        if not file.is_file():
            raise FileNotFoundError("there is no such file")
        tokens = Dataset.from_file(str(file))
        if not tokens.data.schema.equals(TOKENS):
            raise ValueError(f"its columns are {', '.join(tokens.column_names)}")
        tokens.data.validate(full=True)
        return tokens


def gathered(rows: Iterable[Mapping[str, Any]], schema: pa.Schema | None = None) -> Rows:
    """Rows as they come, at least one, as one table in memory."""
    return Dataset(pa.concat_tables(pa.Table.from_pylist(chunk, schema) for chunk in _chunks(rows, 10_000)))
