"""Rows: from a hub, a folder or the embedded language to checked, disjoint splits, and to token ids.

A split is a folder's file `<split>.parquet`, `.csv` or `.jsonl`, or a hub data set's split of that name.
"""

from __future__ import annotations

import csv
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value, disable_progress_bars, load_dataset
from pyarrow import ipc, parquet

from hyperformer.config import DataSettings
from hyperformer.tasks import Task
from hyperformer.types import HyperFormerError, Split

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
HALVE, HOLD_OUT = "halve_", "hold_out_"  # prefixes of split policies
READERS = {"parquet": "parquet", "csv": "csv", "jsonl": "json"}
Rows: TypeAlias = Dataset
Writer = Callable[[Path], None]


def generator(seed: int, *stream: int | str) -> np.random.Generator:
    """Random numbers that depend on the seed and the stream's numbers and names only."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


def write_rows(rows: Mapping[str, Mapping[str, Rows]]) -> Writer:
    """Writes rows as `<task>/<split>.parquet`."""

    def write(folder: Path) -> None:
        for task, splits in rows.items():
            (folder / task).mkdir(parents=True)
            for split, table in splits.items():
                parquet.write_table(
                    table.with_format("arrow")[:].replace_schema_metadata(), folder / task / f"{split}.parquet"
                )

    return write


def read_rows(folder: Path, task: str, split: Split) -> Rows:
    """The rows that `write_rows` wrote."""
    return Dataset(parquet.read_table(folder / task / f"{split}.parquet"))


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
        HyperFormerError: the folder has no file of that split, or several.
    """
    folder = Path(path)
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


def _read(name: str, task: Task, settings: DataSettings, embedded: Path, split: str) -> tuple[Rows, str]:
    """The rows of one of the source's own splits, and the name of their file for messages."""
    path, configuration = _resolved(name, task, settings, embedded)
    file = _local_file(name, path, configuration, split)
    if file is not None:
        disable_progress_bars()  # a local file is read at once
        try:
            rows = load_dataset(READERS[file.suffix[1:]], data_files=str(file), split="train", **_options(file))
        except Exception as error:
            reason = _reason(error.__cause__ or error)
            raise HyperFormerError(f"task {name!r}: {file} cannot be read ({reason}); repair the file") from error
        return rows, str(file)
    try:
        rows = load_dataset(path, configuration, split=split, revision=task.settings.source.revision)
    except Exception as error:
        raise HyperFormerError(
            f"task {name!r}: no rows of split {split!r} from {path!r}, {configuration!r}: neither a folder nor "
            f"a data set that the hub or its cache gives ({_reason(error)}); set data.source or the task's source"
        ) from error
    return rows, f"{path}/{configuration or 'default'}/{split}"


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


def _checked(name: str, task: Task, rows: Rows, file: str) -> Rows:
    """The columns that the task uses, each row valid.

    Raises:
        HyperFormerError: a column is missing, or a row lacks a text or has a foreign label, with file and row.
    """
    wanted = list(dict.fromkeys([*task.text_columns, task.settings.label_column]))
    missing = [column for column in wanted if column not in rows.column_names]
    if missing:
        got = ", ".join(rows.column_names)
        raise HyperFormerError(
            f"task {name!r}: {file} has no column {missing[0]!r}, got {got}; mend `text` or `label_column`"
        )
    if not len(rows):
        raise HyperFormerError(f"task {name!r}: {file} holds no rows; expected at least one")
    rows = rows.select_columns(wanted)
    for number, row in enumerate(rows, start=1):
        try:
            task.example(row)
        except HyperFormerError as error:
            raise HyperFormerError(f"task {name!r}: {file}, row {number}: {error}") from None
    return rows


def _halves(rows: Rows, half: int, seed: int, name: str) -> Rows:
    order = generator(seed, "halve", name).permutation(len(rows))
    cut = len(rows) // 2
    return rows.select(np.sort(order[:cut] if half == 0 else order[cut:]))


def _splits(name: str, task: Task, settings: DataSettings, embedded: Path, seed: int) -> dict[Split, Rows]:
    """The three splits by the task's policy, before rows that stand twice are taken out."""
    policy = {split: getattr(task.settings.splits, split) for split in SPLITS}
    halved = {source.removeprefix(HALVE) for source in policy.values() if source.startswith(HALVE)}
    held = [int(source.removeprefix(HOLD_OUT)) for source in policy.values() if source.startswith(HOLD_OUT)]

    def own(split: str) -> Rows:
        rows, file = _read(name, task, settings, embedded, split)
        return _checked(name, task, rows, file)

    train = _halves(own(policy["train"]), 0, seed, name) if policy["train"] in halved else own(policy["train"])
    order = generator(seed, "hold out", name).permutation(len(train))
    if sum(held) >= len(train):
        raise HyperFormerError(
            f"task {name!r}: hold_out_{held[0]} takes all of the {len(train)} training rows; hold out fewer"
        )
    found: dict[Split, Rows] = {"train": train.select(np.sort(order[sum(held) :]))}
    for split in SPLITS[1:]:
        source = policy[split]
        if source.startswith(HOLD_OUT):
            found[split] = train.select(
                np.sort(order[: held[0]] if split == "validation" else order[sum(held) - held[-1] : sum(held)])
            )
        elif source.startswith(HALVE):
            found[split] = _halves(own(source.removeprefix(HALVE)), 1, seed, name)
        else:
            found[split] = _halves(own(source), 0, seed, name) if source in halved else own(source)
    return found


def prepare(
    tasks: Mapping[str, Task], settings: DataSettings, embedded: Path, seed: int
) -> tuple[dict[str, dict[str, Rows]], dict[str, Any]]:
    """The checked splits of every task, disjoint by content.

    A row whose texts also stand in test is taken out of validation, one whose texts stand in either out of train.

    Args:
        embedded: the folder of the embedded language's rows, for the tasks that use it.
    Returns:
        task → split → rows, and task → split → counts of rows kept and taken out.
    """
    rows: dict[str, dict[str, Rows]] = {}
    counts: dict[str, Any] = {}
    for name, task in tasks.items():
        found = _splits(name, task, settings, embedded, seed)
        later: set[tuple[str, ...]] = set()
        kept: dict[str, Rows] = {}
        counts[name] = {}
        for split in reversed(SPLITS):
            texts = list(zip(*(found[split][column] for column in task.text_columns), strict=True))
            keep = [i for i, text in enumerate(texts) if text not in later]
            kept[split] = found[split].select(keep)
            later.update(texts)
            counts[name][split] = {"rows": len(keep), "removed": len(texts) - len(keep)}
            if not keep:
                raise HyperFormerError(
                    f"task {name!r}: every row of {split} also stands in a later split; give other rows"
                )
        rows[name] = {split: kept[split] for split in SPLITS}
        log.info("%s: %s", name, ", ".join(f"{split} {len(kept[split])}" for split in SPLITS))
    return rows, counts


def training_texts(rows: Path, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Every text of every task's training rows."""
    for name, task in tasks.items():
        for row in read_rows(rows, name, "train"):
            yield from (str(row[column]) for column in task.text_columns)


def write_tokens(tokens: Mapping[str, Iterable[Mapping[str, Sequence[int]]]]) -> Writer:
    """Writes the token ids of training rows as `<task>.arrow`, an Arrow stream."""
    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])

    def write(folder: Path) -> None:
        for task, rows in tokens.items():
            with ipc.new_stream(folder / f"{task}.arrow", schema) as stream:
                for chunk in _chunks(rows, 1000):
                    stream.write_batch(pa.RecordBatch.from_pylist(chunk, schema))

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
    """The token ids that `write_tokens` wrote, memory-mapped."""
    return Dataset.from_file(str(folder / f"{task}.arrow"))


def gathered(rows: Iterable[Mapping[str, Any]], schema: pa.Schema | None = None) -> Rows:
    """Rows as they come, at least one, as one table in memory."""
    return Dataset(pa.concat_tables(pa.Table.from_pylist(chunk, schema) for chunk in _chunks(rows, 10_000)))
