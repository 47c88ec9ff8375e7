"""Load the exported tasks of a folder by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.runtime.bundle import Bundle, Precision
from hyperformer.runtime.sessions import Provider
from hyperformer.runtime.shared import SharedBundle, load_base


class UnknownTaskError(HyperFormerError, KeyError):
    """The folder has no task of this name. It is also a `KeyError`, which mappings raise for unknown keys."""

    __str__ = Exception.__str__


def find_bundles(root: Path) -> list[Path]:
    """Return the subfolders of a folder that are bundles, complete or incomplete."""
    names = (manifest.MANIFEST, manifest.GRAPH, manifest.GENERATION)
    return sorted({path.parent for name in names for path in root.glob(f"*/{name}")})


class Bundles(Mapping[str, Bundle]):
    """The exported tasks of a folder, by subfolder name; each task is loaded when it is first used."""

    def __init__(
        self,
        folder: Path,
        threads: int | None = None,
        precision: Precision = "float32",
        allow_unpublished: bool = False,
        provider: Provider = "cpu",
    ) -> None:
        self._folder, self._threads, self._precision, self._provider = folder, threads, precision, provider
        self._allow_unpublished = allow_unpublished
        self._base = load_base(folder, threads, precision, provider) if (folder / manifest.BASE).is_file() else None
        self._folders = {path.name: path for path in find_bundles(folder)}
        self._loaded: dict[str, Bundle] = {}
        self._lock = threading.Lock()

    def __getitem__(self, task: str) -> Bundle:
        if task not in self._folders:
            expected = ", ".join(self._folders)
            raise UnknownTaskError(f"unknown task {task!r} in {self._folder}; expected one of {expected}")
        with self._lock:
            if task not in self._loaded:
                self._loaded[task] = self._load(self._folders[task])
        return self._loaded[task]

    def _load(self, folder: Path) -> Bundle:
        if self._base:
            return SharedBundle(folder, self._base, allow_unpublished=self._allow_unpublished)
        return Bundle(
            folder,
            self._threads,
            self._precision,
            allow_unpublished=self._allow_unpublished,
            provider=self._provider,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)
