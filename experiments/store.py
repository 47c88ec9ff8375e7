"""Cells: one small JSON for each finished measurement, committed, with the hashes of what it was made from.

A cell stands while its settings, rows and models are the same; the hash of the code that made it is written beside.
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
from hyperformer.config import Settings
from pipelines.datasets import FolderDataset

CELLS, WORK, CODE = HERE / "runs", HERE / "work", ROOT / "src" / "hyperformer"
Cell = dict[str, Any]
log = logging.getLogger("hyperformer.experiments")


def path_of(kind: str, suite: str, name: str) -> Path:
    """Where a cell is."""
    return CELLS / kind / suite / f"{name}.json"


def plain(contender: str) -> str:
    """A contender's name as a part of a file's."""
    return contender.replace(", ", "-").replace(" ", "_")


def read(*names: str) -> Cell | None:
    """A cell; None where there is none."""
    path = path_of(*names)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(cell: Cell, *names: str) -> None:
    """Writes a cell beside its place, and moves it there."""
    path = path_of(*names)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def stands(cell: Cell | None, made_from: dict[str, str]) -> bool:
    """Whether a cell was made from the same settings, rows and models, by whatever code."""
    return cell is not None and {**cell["made_from"], "code": ""} == {**made_from, "code": ""}


def alike(kind: str, made_from: dict[str, str]) -> Cell | None:
    """A cell of any suite that was made from the same; None where there is none."""
    there = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(CELLS.glob(f"{kind}/*/*.json")))
    return next((cell for cell in there if stands(cell, made_from)), None)


@contextmanager
def claimed(*names: str) -> Iterator[bool]:
    """Whether a cell is this process's alone inside; the claim ends with the process at the latest."""
    path = WORK.joinpath("claims", *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def shared_out(kind: str, suite: str, wanted: Iterable[Any], make: Callable[..., bool]) -> None:
    """Makes every wanted cell, in turns with other processes that do the same.

    Args:
        wanted: what `make` is given for each cell, its name first.
        make: makes a cell, unless it stands; False where it must wait for others.
    """
    missing = list(wanted)
    while missing:
        later = []
        for given in missing:
            with claimed(kind, suite, given[0]) as mine:
                if not mine or not make(*given):
                    later.append(given)
        if later == missing:
            time.sleep(20)
        missing = later


def digest(parts: Sequence[BaseModel | str | int]) -> str:
    """A checksum of settings that are not at their defaults: a new setting leaves it as it was."""
    plain = [
        part.model_dump(mode="json", exclude_defaults=True) if isinstance(part, BaseModel) else part for part in parts
    ]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def folder(path: Path, fill: Any) -> Path:
    """A folder that `fill` filled beside its place."""
    FolderDataset(str(path)).save(fill)
    return path


def made_once(path: Path, make: Callable[[], Any]) -> Path:
    """A folder that several processes need: the first one fills it with what `make` gives, the others wait for it."""
    lock = WORK / "claims" / f"{path.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return path if path.is_dir() else folder(path, make())


def rows_of(suite: Suite, settings: Settings) -> Path:
    """The folder of checked rows of a suite's tasks, made with seed 0 where it is missing."""
    from hyperformer.data import prepare, write_rows
    from hyperformer.embedded.suite import language_rows
    from hyperformer.tasks import make

    tasks, data, embedded = settings.tasks, settings.data, settings.embedded
    key = digest([tasks, data, embedded])[:16]
    rows, language = (WORK / kind / f"{suite.environment}-{key}" for kind in ("rows", "language"))

    def checked() -> Any:
        folder(language, language_rows(tasks, data, embedded, 0))
        return write_rows(prepare(make(tasks), data, language, 0)[0])

    return made_once(rows, checked)
