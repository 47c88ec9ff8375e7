"""A folder of exported tasks, by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from hyperformer import manifest
from hyperformer.runtime.bundle import Bundle, Precision
from hyperformer.runtime.shared import SharedBundle, base_of
from hyperformer.types import HyperFormerError


class UnknownTask(HyperFormerError, KeyError):
    """A task that the folder does not hold; a `KeyError` too, as a mapping's should be."""

    __str__ = Exception.__str__


def places(root: Path) -> list[Path]:
    """The folders of a root in which a bundle is, or should be."""
    marks = (manifest.FILE, manifest.GRAPH, manifest.GENERATION)
    return sorted({path.parent for mark in marks for path in root.glob(f"*/{mark}")})


class Bundles(Mapping[str, Bundle]):
    """Every task of a folder, by its folder's name; each is opened when it is first asked."""

    def __init__(self, folder: Path, threads: int | None, precision: Precision) -> None:
        self._folder, self._threads, self._precision = folder, threads, precision
        self._base = base_of(folder, threads, precision) if (folder / manifest.BASE).is_file() else None
        self._places = {path.name: path for path in places(folder)}
        self._open: dict[str, Bundle] = {}
        self._lock = threading.Lock()

    def __getitem__(self, task: str) -> Bundle:
        if task not in self._places:
            raise UnknownTask(f"unknown task {task!r}; {self._folder} holds {', '.join(self._places)}")
        with self._lock:
            if task not in self._open:
                self._open[task] = self._opened(self._places[task])
        return self._open[task]

    def _opened(self, place: Path) -> Bundle:
        return SharedBundle(place, self._base) if self._base else Bundle(place, self._threads, self._precision)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
