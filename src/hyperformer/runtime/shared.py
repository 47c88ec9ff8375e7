"""Bundles that share one graph: a session for all of them, and a small file of inputs for each."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

from hyperformer import manifest
from hyperformer.runtime.bundle import (
    Bundle,
    Precision,
    checked,
    described,
    open_tokenizer,
    opened,
    tried,
    verify,
    verify_files,
)
from hyperformer.types import HyperFormerError


def verified_base(folder: Path) -> manifest.Base:
    """What a folder says of its base, whose files are the ones that were exported.

    Raises:
        HyperFormerError: they are not, or there is no base.
    """
    found = tried(lambda: manifest.read_base(folder), f"{folder} has no base")
    verify_files(folder, manifest.BASE, found.files, [manifest.GRAPH, manifest.TOKENIZER])
    return found


class SharedBase:
    """The base of a folder of bundles: one session and one tokenizer, for any number of tasks and threads.

    Args:
        folder: what the export wrote: base graph, tokenizer, and a folder for each task.
        threads: of onnxruntime; None for its own choice.
    Raises:
        HyperFormerError: a file is missing or not the one that was exported.
    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        self.folder = folder
        found = verified_base(folder)
        self.sha256 = found.files[manifest.GRAPH]
        self.session = opened(folder / manifest.GRAPH, threads)
        self.tokenizer = open_tokenizer(folder / manifest.TOKENIZER)


def adapter(file: Path) -> Any:
    """onnxruntime's adapter of a file, which it maps: of a copy of its own, so that a change of the file is no harm."""
    found = onnxruntime.LoraAdapter()
    with tempfile.NamedTemporaryFile(suffix=file.suffix) as copy:
        shutil.copyfile(file, copy.name)
        found.Load(copy.name)
    return found


class SharedBundle(Bundle):
    """One task on a base.

    Raises:
        HyperFormerError: the folder is no bundle, a file is not the one that was exported, or belongs to another base.
    """

    def __init__(self, folder: Path, base: SharedBase) -> None:
        self.folder, self.manifest = folder, described(folder)
        verify(folder, self.manifest)
        if manifest.ADAPTER not in self.manifest.files:
            raise HyperFormerError(f"{folder / manifest.FILE} does not list {manifest.ADAPTER}; export the tasks again")
        if self.manifest.made_from.get("base") != base.sha256:
            raise HyperFormerError(f"{folder} was exported with another base than {base.folder}; export both again")
        self._session, self._tokenizer = base.session, base.tokenizer
        self._adapter = tried(
            lambda: adapter(folder / manifest.ADAPTER), f"{folder / manifest.ADAPTER} cannot be opened"
        )
        self._options = onnxruntime.RunOptions()  # which only points to the adapter
        self._options.add_active_adapter(self._adapter)


def base_of(folder: Path, threads: int | None, precision: Precision) -> SharedBase:
    """The base of a folder, which is in float32 only.

    Raises:
        HyperFormerError: another precision is asked for, or the base cannot be opened.
    """
    checked(threads, precision)
    if precision != "float32":
        raise HyperFormerError(f"the base in {folder} is in float32 only; take a bundle of each task for {precision}")
    return SharedBase(folder, threads)
