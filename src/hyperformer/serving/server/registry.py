"""Registry of the tasks of a folder: loads them at startup, and again when their files change."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.runtime import Bundle
from hyperformer.runtime.bundle import Precision
from hyperformer.runtime.router import find_bundles
from hyperformer.runtime.sessions import Provider
from hyperformer.runtime.shared import SharedBase, SharedBundle, load_base

log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[str, int, int, int, int], ...]
"""Name, size, times of modification and of change, and inode of each file."""
MISSED_CHECKS = 2
"""Number of consecutive checks without a task's folder after which the task is removed.

The folder is missing for a moment while an export replaces it by renaming.
"""


@dataclass
class Entry:
    """A task: its loaded bundle, if any, and the error of the last attempt to load it, if any."""

    fingerprint: Fingerprint
    bundle: Bundle | None
    reason: str = ""
    missed: int = 0


class Registry:
    """The tasks of a folder by name; safe to use from several threads.

    A task whose new files cannot be loaded keeps the bundle that was loaded before.

    Args:
        root: a folder of exported tasks, as bundles or on a shared base.
        threads: number of CPU threads of each bundle or of the shared base; None for the provider's default.
        precision: the precision of each bundle.
        on_reload: called with the name of each task that was added or changed after startup, and whether it was loaded.
        allow_unpublished: also load tasks that are not published; otherwise they cannot be loaded.
        provider: what runs the graphs.

    Raises:
        HyperFormerError: the folder contains no tasks, none can be loaded, or the shared base cannot be loaded.
    """

    def __init__(
        self,
        root: Path,
        threads: int | None,
        precision: Precision,
        on_reload: Callable[[str, bool], None] = lambda name, loaded: None,
        allow_unpublished: bool = False,
        provider: Provider = "cpu",
    ) -> None:
        self.root = root.absolute()  # absolute, so that `_reason` can remove it from errors
        self._threads, self._precision, self._allow_unpublished = threads, precision, allow_unpublished
        self._provider = provider
        self._entries: dict[str, Entry] = {}
        self._base: tuple[Fingerprint, SharedBase] | None = None
        self._failed_base: Fingerprint = ()
        self._base_error = ""
        self._started = False
        self._on_reload = on_reload
        self._lock = threading.Lock()
        if not find_bundles(root):
            raise HyperFormerError(f"{root} contains no exported tasks. Use the folder that an export wrote.")
        self.refresh()
        if not any(entry.bundle for entry in self._entries.values()):
            first = next(iter(self._entries.values()))
            raise HyperFormerError(f"no task of {escape(str(root))} can be loaded: {first.reason}")
        self._started = True

    def __getitem__(self, name: str) -> Bundle | None:
        """Return the bundle of a task, or None if the task does not exist or cannot be loaded."""
        entry = self._entries.get(name)
        return entry.bundle if entry else None

    def index(self) -> dict[str, tuple[Bundle | None, str]]:
        """Return the bundle of each task, and the error of its files or of the shared base.

        The bundle is None if none has been loaded; the error is empty if there is none.
        """
        return {name: (entry.bundle, entry.reason or self._base_error) for name, entry in sorted(self._entries.items())}

    def refresh(self) -> None:
        """Check the folder, load new and changed tasks, and remove tasks whose folders are gone.

        A task is removed after `MISSED_CHECKS` consecutive checks without its folder.
        """
        with self._lock:
            if self._started and not self.root.is_dir():  # it is being replaced, or is unmounted
                return
            folders = {
                escape(folder.name): folder for folder in find_bundles(self.root) if not folder.name.startswith(".")
            }
            loader = self._make_loader()
            entries = dict(self._entries)
            for name, folder in folders.items():
                previous = entries.get(name)
                try:
                    fingerprint = (*_fingerprint_folder(folder), *(self._base[0] if self._base else ()))
                except OSError:  # the folder is being replaced; the next check sees all of its files
                    continue
                if previous is None or previous.fingerprint != fingerprint:
                    entries[name] = self._load(name, folder, fingerprint, loader, previous)
                else:
                    previous.missed = 0
            for name in entries.keys() - folders.keys():
                entries[name].missed += 1
                if entries[name].missed >= MISSED_CHECKS:
                    log.warning("removed task %s, which is gone from %s", name, self.root)
                    del entries[name]
            self._entries = entries

    def _make_loader(self) -> Callable[[Path], Bundle]:
        """Return a function that loads a task's folder; a shared base is loaded again when it has changed."""
        files = [self.root / name for name in (manifest.BASE, manifest.GRAPH, manifest.TOKENIZER)]
        if self._base is not None or files[0].is_file():
            try:
                fingerprint = tuple(_fingerprint_file(path, path.name) for path in files)
                _check_files(files)
                if fingerprint != self._failed_base:
                    if self._base is None or fingerprint != self._base[0]:
                        self._failed_base = fingerprint  # so that it is not read again until it changes
                        self._base = fingerprint, load_base(self.root, self._threads, self._precision, self._provider)
                    self._failed_base, self._base_error = (), ""
            except (OSError, HyperFormerError) as error:
                if not self._started:
                    raise
                reason = self._reason(error)
                if reason != self._base_error:
                    log.error("cannot load the shared base: %s", reason)
                self._base_error = reason
        base = self._base
        if base is None:
            return lambda folder: Bundle(
                folder,
                self._threads,
                self._precision,
                allow_unpublished=self._allow_unpublished,
                provider=self._provider,
            )
        return lambda folder: SharedBundle(folder, base[1], allow_unpublished=self._allow_unpublished)

    def _load(
        self,
        name: str,
        folder: Path,
        fingerprint: Fingerprint,
        loader: Callable[[Path], Bundle],
        previous: Entry | None,
    ) -> Entry:
        try:
            _check_name(folder.name)
            _check_files(_list_files(folder))
            bundle = loader(folder)
            _check_manifest(bundle.manifest)
            entry = Entry(fingerprint, bundle)
            if self._started:
                log.info("reloaded task %s", name)
        except Exception as error:  # an error of one task must not affect the others
            entry = Entry(fingerprint, previous.bundle if previous else None, self._reason(error))
            log.error("cannot load task %s: %s", name, entry.reason)
        if self._started:
            self._on_reload(name, not entry.reason)
        return entry

    def _reason(self, error: Exception) -> str:
        """Return an error as one line for clients, without the path of the root."""
        message = str(error) if isinstance(error, HyperFormerError) else f"{type(error).__name__}: {error}"
        return escape(message.replace(f"{self.root}{os.sep}", "").replace(str(self.root), "the folder"))


def escape(text: str) -> str:
    """Escape characters that are not printable, such as line breaks, and bytes that are not UTF-8."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _check_name(name: str) -> None:
    """Refuse a folder whose name is not a valid task name, by the rules of the configuration.

    Raises:
        HyperFormerError: the name is blank, or has a backslash, a control character or bytes that are not UTF-8.
    """
    if not name.strip() or "\\" in name or not name.isprintable():
        raise HyperFormerError(
            f"the folder's name is {name!r}; expected printable UTF-8 without a backslash. Rename the folder."
        )


def _check_manifest(description: manifest.Manifest) -> None:
    """Refuse a manifest that cannot be sent as JSON or written to the log.

    Raises:
        HyperFormerError: the manifest has a lone surrogate, or its task's name is not printable.
    """
    try:
        json.dumps(asdict(description), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise HyperFormerError(
            f"{manifest.MANIFEST} has a lone surrogate ({error.reason}); expected Unicode text. Export the task again."
        ) from None
    if not description.task.isprintable():
        raise HyperFormerError(
            f"{manifest.MANIFEST} has the task {description.task!r}; expected a printable name. Export the task again."
        )


def _check_files(files: Iterable[Path]) -> None:
    """Refuse files that could block their reader, or have no end.

    Raises:
        HyperFormerError: a file is a FIFO, a socket or a device.
    """
    for path in files:
        if not stat.S_ISREG(path.stat().st_mode):
            raise HyperFormerError(f"{path} is a FIFO, a socket or a device; expected a regular file. Remove it.")


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.exists() and not path.is_dir())


def _fingerprint_folder(folder: Path) -> Fingerprint:
    """Return a fingerprint that changes with the files of a folder, without reading them."""
    return tuple(_fingerprint_file(path, path.relative_to(folder).as_posix()) for path in _list_files(folder))


def _fingerprint_file(path: Path, name: str) -> tuple[str, int, int, int, int]:
    status = path.stat()
    return name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
