"""Checksums of files and folders, files that are replaced atomically, and errors in reading files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hyperformer.core.errors import HyperFormerError, first_line

DAMAGE = {None, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EINVAL}
"""Error numbers in reading a file that is missing or damaged; libraries in C++ raise errors without a number."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of all files below a folder, or of the bytes of a single file.

    Names are paths relative to the folder. Files in `__pycache__` are left out.
    """
    if not folder.is_dir():
        return sha256(folder)
    listed = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return _listed_sha256({path.relative_to(folder).as_posix(): path for path in listed})


def files_sha256(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and bytes of files, without their folders."""
    return _listed_sha256({path.name: path for path in files})


def _listed_sha256(files: Mapping[str, Path]) -> str:
    lines = "".join(f"{name} {sha256(path)}\n" for name, path in files.items())
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield the path of a new file; once the block has written it, it replaces the file at `path` atomically.

    If the block fails, the new file is removed, and the file at `path` stays as it was.
    """
    new = path.with_name(f".{path.name}.new")
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 to a file, which is replaced atomically."""
    with replace_file(path) as new:
        new.write_text(text, encoding="utf-8")


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield the path of a new, empty folder; once the block has filled it, it replaces the folder at `folder`.

    If the block fails, the new folder is removed, and the previous folder stays as it was.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    mode = new.stat().st_mode & 0o666  # some libraries write files that only their owner can read
    for path in new.rglob("*"):
        if path.is_file():
            path.chmod(mode)
    old = new.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def is_damage(error: Exception) -> bool:
    """Return whether a file is missing or damaged, and not its permissions, disk or network the cause of an error."""
    return not isinstance(error, OSError) or error.errno in DAMAGE


@contextmanager
def report_damage(file: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Turn an error in reading a stage's output into an error that names the file.

    Args:
        file: the file.
        kinds: types of errors of a damaged file, besides OSError and ValueError.

    Raises:
        HyperFormerError: if the file is missing or damaged.
    """
    errors: tuple[type[Exception], ...] = (OSError, ValueError, *kinds)
    try:
        if file.is_dir():  # which pyarrow would read as a dataset without rows
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        yield
    except errors as error:
        if not is_damage(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise HyperFormerError(
            f"{file} cannot be read ({reason}); expected the file that an earlier stage wrote. Remove it, then run "
            "that stage again."
        ) from None
