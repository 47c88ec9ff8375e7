"""Recorded runs: one committed JSON file for each finished measurement, with the hashes of its inputs.

A run is up to date as long as the hashes of its settings, rows and models do not change. The hash of the code is
recorded, but not compared.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from experiments.plan import HERE, ROOT, Suite
from hyperformer.core.files import write_text
from hyperformer.settings import Settings
from pipelines.datasets import FolderDataset

RUNS = HERE / "runs"
"""Folder of the committed JSON files."""
WORK = HERE / "work"
"""Folder of rows, token ids, checkpoints and locks; not committed."""
CODE = ROOT / "src" / "hyperformer"
"""Folder of the code whose hash is recorded."""
POLL_SECONDS = 20
Run = dict[str, Any]
log = logging.getLogger("hyperformer.experiments")


def path_of(kind: str, suite: str, name: str) -> Path:
    """Return the path of a run's file."""
    return RUNS / kind / suite / f"{name}.json"


def file_stem(configuration: str) -> str:
    """Return a configuration's name in the form that file names use."""
    return configuration.replace(", ", "-").replace(" ", "_")


def read(*names: str) -> Run | None:
    """Read a run; return None if it has no file."""
    path = path_of(*names)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(run: Run, *names: str) -> None:
    """Write a run atomically."""
    path = path_of(*names)
    write_text(path, json.dumps(run, indent=1) + "\n")


def is_current(run: Run | None, made_from: dict[str, str]) -> bool:
    """Return whether a run has these hashes of settings, rows and models; its hash of the code may differ."""
    return run is not None and {**run["made_from"], "code": ""} == {**made_from, "code": ""}


def find_current(kind: str, made_from: dict[str, str]) -> Run | None:
    """Return a run of any suite with these hashes of settings, rows and models; None if no run has them."""
    runs = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(RUNS.glob(f"{kind}/*/*.json")))
    return next((run for run in runs if is_current(run, made_from)), None)


@contextmanager
def claim(*names: str) -> Iterator[bool]:
    """Lock a run, unless another process has locked it, and yield whether this process has the lock."""
    path = WORK.joinpath("claims", *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def compute_missing(kind: str, suite: str, planned: Iterable[Any], compute: Callable[..., bool]) -> None:
    """Compute the planned runs that are missing or outdated; several processes may share this work.

    Args:
        kind: `comparison` or `transfer`.
        suite: The suite's name.
        planned: The arguments of `compute` for each run; the first argument is the run's name.
        compute: Computes a run unless it is up to date; returns False if the run must wait for other runs.
    """
    missing = list(planned)
    while missing:
        later = []
        for arguments in missing:
            with claim(kind, suite, arguments[0]) as is_held:
                if not is_held or not compute(*arguments):
                    later.append(arguments)
        if later == missing:
            time.sleep(POLL_SECONDS)
        missing = later


def digest(parts: Sequence[BaseModel | str | int]) -> str:
    """Return a checksum of settings without default values, so that new settings do not change it."""
    values = [
        part.model_dump(mode="json", exclude_defaults=True) if isinstance(part, BaseModel) else part for part in parts
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_folder(path: Path, fill: Any) -> Path:
    """Write a folder atomically, with the files that `fill` writes, and return its path."""
    FolderDataset(str(path)).save(fill)
    return path


def write_folder_once(path: Path, make: Callable[[], Any]) -> Path:
    """Write a folder that several processes need: the first process writes it, the others wait.

    Args:
        path: The folder.
        make: Returns a function that fills the folder; called only if the folder is missing.

    Returns:
        The folder's path.
    """
    lock = WORK / "claims" / f"{path.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return path if path.is_dir() else write_folder(path, make())


def prepare_rows(suite: Suite, settings: Settings) -> Path:
    """Return the folder of a suite's prepared rows; write it with seed 0 if it is missing."""
    from hyperformer.data.splits import prepare
    from hyperformer.data.storage import write_rows
    from hyperformer.embedded.suite import write_language_rows
    from hyperformer.tasks import make_tasks

    tasks, data, embedded = settings.tasks, settings.data, settings.embedded
    key = digest([tasks, data, embedded])[:16]
    rows, language = (WORK / kind / f"{suite.environment}-{key}" for kind in ("rows", "language"))

    def make_rows() -> Any:
        write_folder(language, write_language_rows(tasks, data, embedded, 0))
        return write_rows(prepare(make_tasks(tasks), data, language, 0)[0])

    return write_folder_once(rows, make_rows)


def sample_train_rows(rows: Path, tasks: Sequence[str], count: int, seed: int) -> Path:
    """Return a folder with at most `count` random training rows of each task; write it if it is missing.

    Args:
        rows: The folder of all rows; validation and test rows are copied from it.
        tasks: Names of the tasks.
        count: Number of training rows of a task; a task with fewer rows has all of them.
        seed: Seed of the sample.
    """
    from hyperformer.core.types import SPLITS
    from hyperformer.data.storage import open_parquet, read_rows, sample_rows, write_rows

    def sample(task: str) -> dict[str, Any]:
        available = len(open_parquet(rows / task / "train.parquet"))
        train = sample_rows(rows, task, "train", min(count, available), seed)
        return {"train": train, **{split: read_rows(rows, task, split) for split in SPLITS[1:]}}

    folder = rows.with_name(f"{rows.name}-{count}-{seed}")
    return write_folder_once(folder, lambda: write_rows({task: sample(task) for task in tasks}))
