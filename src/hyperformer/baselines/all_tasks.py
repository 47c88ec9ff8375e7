"""The baselines of all tasks, with a cache that runs share."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyperformer.backbones import compute_checksum
from hyperformer.baselines.features import Embed
from hyperformer.baselines.models import EVALUATED, evaluate_baselines, evaluate_majority
from hyperformer.core.files import folder_sha256
from hyperformer.core.progress import track
from hyperformer.core.result_cache import read_cached, write_cached
from hyperformer.core.types import SPLITS, Split
from hyperformer.data.storage import Rows, open_parquet, read_rows, report_damage, sample_rows, stream_rows
from hyperformer.model.inference import make_embedder
from hyperformer.settings import BackboneSettings
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

MAX_TRAIN_ROWS = 20_000
"""Maximum number of rows that the baselines of a task are fitted to."""
MAX_TEST_ROWS = 5_000
"""Maximum number of rows that the fitted baselines of a task are tested on."""
MAX_VALIDATION_ROWS = 2_000
"""Maximum number of rows that the strength of the regularization is chosen on."""
PACKAGE = Path(__file__).parents[1]
CODE_PATHS = ("backbones", "baselines", "core", "data", "model", "settings", "tasks")
"""Modules and packages of `hyperformer` whose code can change the scores."""
LIBRARIES = ("numpy", "scikit-learn", "scipy", "tokenizers", "torch", "transformers")
"""Distributions whose versions can change the scores."""


def evaluate_cached_baselines(
    tasks: Mapping[str, Task], rows: Path, backbone: BackboneSettings, batch_size: int, seed: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """Evaluate the baselines as `evaluate_all_baselines` does, but only of tasks that changed since the last run.

    Args:
        tasks: the tasks by name.
        rows: the folder of preprocessed rows.
        backbone: settings of the backbone; it is loaded only if a task changed.
        batch_size: number of texts that are embedded at once.
        seed: determines which rows are sampled.
        folder: the folder of `<task>.json`, the results that are kept between runs.
    """
    load = cache(partial(make_embedder, backbone, batch_size))
    origin = {
        "backbone": {**backbone.model_dump(mode="json"), "sha256": compute_checksum(backbone)},
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),  # the rounding of embeddings depends on it
        "gpu": torch.cuda.is_available(),
        "code": {name: folder_sha256(PACKAGE / name) for name in CODE_PATHS},
        "libraries": {name: version(name) for name in LIBRARIES},
    }

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return load()(texts)

    return evaluate_all_baselines(tasks, rows, embed, seed, folder, origin)


def evaluate_all_baselines(
    tasks: Mapping[str, Task],
    rows: Path,
    embed: Embed,
    seed: int,
    folder: Path | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate the baselines of every task on its validation and test split.

    Args:
        tasks: the tasks by name.
        rows: the folder of preprocessed rows.
        embed: computes the backbone's embeddings of texts, [texts, d].
        seed: determines which rows are used of a split that has more than are sampled.
        folder: the folder of results that are kept between runs; None: keep none.
        origin: what the results depend on besides the task, its rows and the seed.

    Returns:
        `validation` and `test` → task → baseline → metric → percent, and `notes` → task → subject → note. There is a
        note for each baseline that is left out and for each split of which a sample is used.
    """
    results: dict[str, dict[str, Any]] = {part: {} for part in (*EVALUATED, "notes")}
    for name, task in track(tasks.items(), "baselines", len(tasks)):
        file = folder / f"{name}.json" if folder else None
        made_from = {**(origin or {}), **_describe(task, rows, seed)} if file else {}
        result = read_cached(file, made_from) if file else None
        if result is not None:
            log.info("%s: nothing changed; using the results in %s", name, file)
        else:
            result = _evaluate_task(task, rows, embed, seed)
            if file:
                write_cached(file, made_from, result)
        for part, by_task in results.items():
            by_task[name] = result[part]
    return results


def _describe(task: Task, rows: Path, seed: int) -> dict[str, Any]:
    """Return what the results of a task depend on: its settings, rows and seed; the rows include their source."""
    settings = task.settings.model_dump(mode="json", exclude={"source", "splits", "weight"})
    return {"task": {task.name: settings}, "rows": folder_sha256(rows / task.name), "seed": seed}


def _evaluate_task(task: Task, rows: Path, embed: Embed, seed: int) -> dict[str, Any]:
    """Evaluate the baselines of a task; all but `majority` use samples of large splits. Log their scores and notes."""
    notes: dict[str, str] = {}
    train = _read_sample(rows, task.name, "train", MAX_TRAIN_ROWS, seed, notes)
    validation = _read_sample(rows, task.name, "validation", MAX_VALIDATION_ROWS, seed, notes)
    test = _read_sample(rows, task.name, "test", MAX_TEST_ROWS, seed, notes)
    scores, left_out = evaluate_baselines(task, train, validation, test, embed)
    labels = [(task.read_label(row) for row in stream_rows(rows, task.name, split)) for split in SPLITS]
    for split, majority in evaluate_majority(task, labels[0], *map(list, labels[1:])).items():
        scores[split] |= majority
        listed = ", ".join(f"{kind} {result['mean']:.2f}" for kind, result in scores[split].items())
        log.info("%s, %s: %s", task.name, split, listed)
    notes |= left_out
    for subject, note in notes.items():
        log.info("%s, %s: %s", task.name, subject, note)
    return {**scores, "notes": notes}


def _read_sample(folder: Path, task: str, split: Split, limit: int, seed: int, notes: dict[str, str]) -> Rows:
    """Read the rows of a split, or a random sample of `limit` rows and add a note."""
    file = folder / task / f"{split}.parquet"
    with report_damage(file):
        count = len(open_parquet(file))
    if count <= limit:
        return read_rows(folder, task, split)
    notes[split] = f"a random sample of {limit:,} of the {count:,} rows is used"
    return sample_rows(folder, task, split, limit, seed)
