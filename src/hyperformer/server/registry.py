"""Which tasks there are: opened at the start, and anew when their files change."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from hyperformer import manifest
from hyperformer.runtime import Bundle
from hyperformer.runtime.bundle import Precision
from hyperformer.runtime.router import places
from hyperformer.runtime.shared import SharedBase, SharedBundle, base_of
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

Mark = tuple[tuple[str, int, int, int, int], ...]
MISSED = 2  # looks in a row that do not find a task before it is gone: an export moves its folder into place


@dataclass
class Entry:
    """A task's folder: what answers, if it could be opened, and why it could not the last time."""

    mark: Mark
    bundle: Bundle | None
    reason: str = ""
    missed: int = 0


class Registry:
    """The tasks of a folder by name; may be asked from several threads.

    A task whose new files cannot be used goes on answering with those before.

    Args:
        root: a folder of exported tasks, of bundles or on a shared base.
        threads, precision: of each.
        reloaded: told, of each task that is opened after the start, whether it could be.
    Raises:
        HyperFormerError: the root is no folder of tasks, or none can be opened.
    """

    def __init__(
        self,
        root: Path,
        threads: int | None,
        precision: Precision,
        reloaded: Callable[[str, bool], None] = lambda name, good: None,
    ) -> None:
        self.root = root.absolute()  # so that reasons can leave its path out
        self._threads, self._precision = threads, precision
        self._entries: dict[str, Entry] = {}
        self._base: tuple[Mark, SharedBase] | None = None
        self._failed: Mark = ()
        self._fault = ""
        self._started = False
        self._reloaded = reloaded
        self._looking = threading.Lock()
        if not places(root):
            raise HyperFormerError(f"{root} holds no exported tasks; give the folder that an export wrote")
        self.refresh()
        if not any(entry.bundle for entry in self._entries.values()):
            first = next(iter(self._entries.values()))
            raise HyperFormerError(f"no task of {escape(str(root))} can be opened: {first.reason}")
        self._started = True

    def __getitem__(self, name: str) -> Bundle | None:
        """What answers a task; None where there is no such task, or it cannot be opened."""
        entry = self._entries.get(name)
        return entry.bundle if entry else None

    def index(self) -> dict[str, tuple[Bundle | None, str]]:
        """Every task with what answers it, if anything, and what is wrong with its files, if anything."""
        return {name: (entry.bundle, entry.reason or self._fault) for name, entry in sorted(self._entries.items())}

    def refresh(self) -> None:
        """Looks at the folder, and opens what is new or has changed."""
        with self._looking:
            if self._started and not self.root.is_dir():  # it is being replaced, or its disk is away
                return
            found = {escape(place.name): place for place in places(self.root) if not place.name.startswith(".")}
            opener = self._opener()
            entries = dict(self._entries)
            for name, place in found.items():
                before = entries.get(name)
                try:
                    mark = (*_mark(place), *(self._base[0] if self._base else ()))
                except OSError:  # it is being replaced: the next look finds it whole
                    continue
                if before is None or before.mark != mark:
                    entries[name] = self._opened(name, place, mark, opener, before)
                else:
                    before.missed = 0
            for name in entries.keys() - found.keys():
                entries[name].missed += 1
                if entries[name].missed >= MISSED:
                    log.warning("%s is gone from %s", name, self.root)
                    del entries[name]
            self._entries = entries

    def _opener(self) -> Callable[[Path], Bundle]:
        """What opens a task's folder; a shared base is opened anew when it has changed."""
        files = [self.root / name for name in (manifest.BASE, manifest.GRAPH, manifest.TOKENIZER)]
        if self._base is not None or files[0].is_file():
            try:
                mark = tuple(_marked(path, path.name) for path in files)
                _check_files(files)
                if mark != self._failed:
                    if self._base is None or mark != self._base[0]:
                        self._failed = mark  # not read again until it changes
                        self._base = mark, base_of(self.root, self._threads, self._precision)
                    self._failed, self._fault = (), ""
            except (OSError, HyperFormerError) as error:
                if not self._started:
                    raise
                reason = self._reason(error)
                if reason != self._fault:
                    log.error("the base cannot be opened: %s", reason)
                self._fault = reason
        base = self._base
        if base is None:
            return lambda place: Bundle(place, self._threads, self._precision)
        return lambda place: SharedBundle(place, base[1])

    def _opened(
        self, name: str, place: Path, mark: Mark, opener: Callable[[Path], Bundle], before: Entry | None
    ) -> Entry:
        try:
            _check_name(place.name)
            _check_files(_files(place))
            bundle = opener(place)
            _check_manifest(bundle.manifest)
            entry = Entry(mark, bundle)
            if self._started:
                log.info("%s was opened again", name)
        except Exception as error:  # whatever is wrong with one task, the others are served
            entry = Entry(mark, before.bundle if before else None, self._reason(error))
            log.error("%s cannot be opened: %s", name, entry.reason)
        if self._started:
            self._reloaded(name, not entry.reason)
        return entry

    def _reason(self, error: Exception) -> str:
        """Describe a fault in a line that clients may read: without the path of the root."""
        message = str(error) if isinstance(error, HyperFormerError) else f"{type(error).__name__}: {error}"
        return escape(message.replace(f"{self.root}{os.sep}", "").replace(str(self.root), "the folder"))


def escape(text: str) -> str:
    """Escape what is not printable: line breaks, control characters, bytes that are not UTF-8."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _check_name(name: str) -> None:
    """Refuse a folder whose name cannot be a task's, by the rule of the configuration.

    Raises:
        HyperFormerError: it holds a backslash, a control character or bytes that are not UTF-8, or is blank.
    """
    if not name.strip() or "\\" in name or not name.isprintable():
        raise HyperFormerError(
            f"the folder's name is {name!r}; expected printable UTF-8 without a backslash. Rename the folder."
        )


def _check_manifest(described: manifest.Manifest) -> None:
    """Refuse texts that no answer and no line of the log can hold.

    Raises:
        HyperFormerError: one has a character that is not Unicode's, or the task's name one that is not printable.
    """
    try:
        json.dumps(asdict(described), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise HyperFormerError(
            f"{manifest.FILE} holds a surrogate ({error.reason}); expected Unicode text. Export the task again."
        ) from None
    if not described.task.isprintable():
        raise HyperFormerError(
            f"{manifest.FILE} has the task {described.task!r}; expected a printable name. Export the task again."
        )


def _check_files(files: Iterable[Path]) -> None:
    """Refuse what would block its reader, or never end.

    Raises:
        HyperFormerError: one is a FIFO, a socket or a device.
    """
    for path in files:
        if not stat.S_ISREG(path.stat().st_mode):
            raise HyperFormerError(f"{path} is a FIFO, a socket or a device; expected a regular file. Remove it.")


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.exists() and not path.is_dir())


def _mark(place: Path) -> Mark:
    """What tells a folder's files from others in their place, without reading them."""
    return tuple(_marked(path, path.relative_to(place).as_posix()) for path in _files(place))


def _marked(path: Path, name: str) -> tuple[str, int, int, int, int]:
    found = path.stat()
    return name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
