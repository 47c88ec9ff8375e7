"""Bundles that share one graph: a session for all of them, and a small file of inputs for each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

from hyperformer import manifest
from hyperformer.runtime.bundle import Bundle, Precision, checked, open_tokenizer, opened
from hyperformer.runtime.files import read_base, read_bundle, tried
from hyperformer.types import HyperFormerError


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
        base, contents = read_base(folder, lambda base: list(base.files))
        self.sha256 = base.files[manifest.GRAPH]
        self.session = opened(folder / manifest.GRAPH, contents, threads)
        self.tokenizer = open_tokenizer(contents[manifest.TOKENIZER], folder / manifest.TOKENIZER)


def adapter(content: bytes) -> Any:
    """Open onnxruntime's adapter of a file's bytes; it can only map a file, so it maps one that nobody else has."""
    loaded = onnxruntime.LoraAdapter()
    with tempfile.NamedTemporaryFile(suffix=Path(manifest.ADAPTER).suffix) as copy:
        copy.write(content)
        copy.flush()
        loaded.Load(copy.name)
    return loaded


class SharedBundle(Bundle):
    """One task on a base.

    Raises:
        HyperFormerError: the folder is no bundle, a file is not the one that was exported, or belongs to another base.
    """

    def __init__(self, folder: Path, base: SharedBase) -> None:
        self.folder = folder
        self.manifest, contents = read_bundle(folder, lambda _: [manifest.ADAPTER])
        if manifest.ADAPTER not in self.manifest.files:
            raise HyperFormerError(f"{folder / manifest.FILE} does not list {manifest.ADAPTER}; export the tasks again")
        if self.manifest.made_from.get("base") != base.sha256:
            raise HyperFormerError(f"{folder} was exported with another base than {base.folder}; export both again")
        self._session, self._tokenizer = base.session, base.tokenizer
        file = folder / manifest.ADAPTER
        self._adapter = tried(lambda: adapter(contents[manifest.ADAPTER]), f"{file} cannot be opened")
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
