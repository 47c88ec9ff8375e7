"""Divide the rows of every task into disjoint splits."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.rng import make_rng
from hyperformer.core.types import SPLITS, Split
from hyperformer.data.sources import read_split
from hyperformer.data.storage import StoredRows, mask_of
from hyperformer.settings import DataSettings
from hyperformer.settings.tasks import HALVE, STRATIFIED, is_held_out
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

DIGEST = np.dtype("S16")  # 16 bytes


def _select_half(rows: StoredRows, half: int, seed: int, name: str) -> StoredRows:
    order = make_rng(seed, "halve", name).permutation(len(rows))
    middle = len(rows) // 2
    return rows.select(mask_of(order[:middle] if half == 0 else order[middle:], len(rows)))


def _build_splits(
    name: str, task: Task, settings: DataSettings, embedded: Path, seed: int
) -> tuple[dict[Split, StoredRows], dict[str, int]]:
    """Return the three splits as the task's `splits` setting defines them, before duplicate rows are removed.

    Returns:
        The splits, and the number of rows of each source split that were left out because of missing values.
    """
    policy = {split: getattr(task.settings.splits, split) for split in SPLITS}
    halved = {rule.removeprefix(HALVE) for rule in policy.values() if rule.startswith(HALVE)}
    held: dict[Split, str] = {split: rule for split, rule in policy.items() if is_held_out(rule)}

    dropped: dict[str, int] = {}

    @functools.cache
    def read(split: str) -> StoredRows:
        rows, dropped[split] = read_split(name, task, settings, embedded, split)
        if dropped[split]:
            log.warning("%s: left out %d rows of %s with missing values", name, dropped[split], split)
        return rows

    train = _select_half(read(policy["train"]), 0, seed, name) if policy["train"] in halved else read(policy["train"])
    order = make_rng(seed, "hold out", name).permutation(len(train))
    splits: dict[Split, StoredRows] = {}
    for split, rule in held.items():
        count = int(rule.rpartition("_")[2])
        if count >= len(order):
            total = sum(int(rule.rpartition("_")[2]) for rule in held.values())
            raise HyperFormerError(
                f"task {name!r}: {' and '.join(held.values())} hold out {total} of the {len(train)} training rows; "
                "expected some to remain. Hold out fewer rows."
            )
        first = _stratify(order, train, task, count) if rule.startswith(STRATIFIED) else np.arange(len(order)) < count
        splits[split] = train.select(mask_of(order[first], len(train)))
        order = order[~first]
    splits["train"] = train.select(mask_of(order, len(train)))
    for split in SPLITS[1:]:
        rule = policy[split]
        if split in splits:
            continue
        if rule.startswith(HALVE):
            splits[split] = _select_half(read(rule.removeprefix(HALVE)), 1, seed, name)
        else:
            splits[split] = _select_half(read(rule), 0, seed, name) if rule in halved else read(rule)
    return splits, dropped


def _stratify(order: NDArray[np.int64], rows: StoredRows, task: Task, count: int) -> NDArray[np.bool_]:
    """Return a mask of `count` of the rows in `order` in which every label has its share, rounded.

    The first rows of each label are selected. The largest remainders are rounded up; of equal ones, the first label's.
    """
    batches = rows.select_columns([task.settings.label_column]).iter_batches()
    labels = np.array([task.read_label(row) for batch in batches for row in batch.to_pylist()])[order]
    values, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(order)
    quotas = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]] += 1
    mask = np.zeros(len(order), bool)
    for value, quota in zip(values, quotas, strict=True):
        mask[np.flatnonzero(labels == value)[:quota]] = True
    return mask


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
        task → split → rows, and task → split → how many rows were kept (`rows`) and `removed`. If a task has
        `missing: drop`, the counts of train also have `dropped`, the number of rows of all its source splits that were
        left out because a value is missing.

    Raises:
        HyperFormerError: if the rows of a source cannot be read or are invalid, or if no row of a split is left.
    """
    rows: dict[str, dict[str, StoredRows]] = {}
    counts: dict[str, Any] = {}
    for name, task in tasks.items():
        splits, dropped = _build_splits(name, task, settings, embedded, seed)
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
        if task.settings.missing == "drop":
            counts[name]["train"]["dropped"] = sum(dropped.values())
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
