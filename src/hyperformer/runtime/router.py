"""A folder of exported tasks, by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from hyperformer import manifest
from hyperformer.runtime.bundle import Bundle, Precision
from hyperformer.types import HyperFormerError


class Bundles(Mapping[str, Bundle]):
    """Every task of a folder; each is opened when it is first asked."""

    def __init__(self, folder: Path, threads: int | None, precision: Precision) -> None:
        self._folder, self._threads, self._precision = folder, threads, precision
        self._places = {
            manifest.read(path.parent).task: path.parent for path in sorted(folder.glob(f"*/{manifest.FILE}"))
        }
        self._open: dict[str, Bundle] = {}
        self._lock = threading.Lock()

    def __getitem__(self, task: str) -> Bundle:
        if task not in self._places:
            raise HyperFormerError(f"unknown task {task!r}; {self._folder} holds {', '.join(self._places)}")
        with self._lock:
            if task not in self._open:
                self._open[task] = Bundle(self._places[task], self._threads, self._precision)
        return self._open[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
