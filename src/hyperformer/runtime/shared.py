"""Run bundles that share one graph: one onnxruntime session for all tasks, and a small adapter file for each task."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import Manifest
from hyperformer.runtime.bundle import Bundle, Precision, check_options, open_tokenizer
from hyperformer.runtime.files import convert_errors, read_base, read_bundle
from hyperformer.runtime.sessions import Provider, open_session


class SharedBase:
    """The shared base of a folder of bundles: one session and one tokenizer for any number of tasks; thread-safe.

    Args:
        folder: a folder that an export wrote, with the shared graph and tokenizer, and a subfolder for each task.
        threads: number of threads of onnxruntime; None for its default.

    Raises:
        HyperFormerError: the folder has no shared base, a file is missing or was changed after the export, or
            onnxruntime cannot open the graph.
    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        self.folder = folder
        base, contents = read_base(folder, lambda base: list(base.files))
        self.sha256 = base.files[manifest.GRAPH]
        self.session = open_session(folder / manifest.GRAPH, contents, threads)
        self.tokenizer = open_tokenizer(contents[manifest.TOKENIZER], folder / manifest.TOKENIZER)


def open_adapter(content: bytes) -> Any:
    """Load an onnxruntime adapter from the bytes of its file.

    onnxruntime can load an adapter only from a file, so the bytes are written to a temporary file.
    """
    adapter = onnxruntime.LoraAdapter()
    with tempfile.NamedTemporaryFile(suffix=Path(manifest.ADAPTER).suffix) as copy:
        copy.write(content)
        copy.flush()
        adapter.Load(copy.name)
    return adapter


class SharedBundle(Bundle):
    """An exported task on a shared base.

    Args:
        folder: the task's folder.
        base: the shared base that the task was exported with.
        description: the manifest, if it is not in the folder yet; None: it is read from the folder.
        allow_unpublished: also load a bundle that is not published.

    Raises:
        HyperFormerError: the folder is not a bundle or has no adapter, the bundle is not published, a file is missing
            or was changed after the export, or the task was exported with another base.
    """

    def __init__(
        self,
        folder: Path,
        base: SharedBase,
        description: Manifest | None = None,
        allow_unpublished: bool = False,
    ) -> None:
        self.folder = folder
        self.manifest, contents = read_bundle(folder, lambda _: [manifest.ADAPTER], description, allow_unpublished)
        if manifest.ADAPTER not in self.manifest.files:
            raise HyperFormerError(
                f"{folder / manifest.MANIFEST} does not list {manifest.ADAPTER}. Export the tasks again."
            )
        if self.manifest.made_from.get("base") != base.sha256:
            raise HyperFormerError(
                f"{folder} was exported with a base other than the one in {base.folder}. Export both together."
            )
        self._session, self._tokenizer = base.session, base.tokenizer
        file = folder / manifest.ADAPTER
        self._adapter = convert_errors(lambda: open_adapter(contents[manifest.ADAPTER]), f"{file} cannot be opened")
        self._options = onnxruntime.RunOptions()  # the options do not keep the adapter alive
        self._options.add_active_adapter(self._adapter)


def load_base(folder: Path, threads: int | None, precision: Precision, provider: Provider = "cpu") -> SharedBase:
    """Load the shared base of a folder.

    Args:
        folder: the folder of the base and its bundles.
        threads: number of threads of onnxruntime; None for its default.
        precision: must be `float32`; a shared base has no int8 graph.
        provider: must be `cpu`; the weights of a task are an adapter of onnxruntime.

    Returns:
        The base.

    Raises:
        HyperFormerError: the precision is not `float32`, the provider is not `cpu`, `threads` is invalid, or the base
            cannot be loaded.
    """
    check_options(threads, precision, provider)
    if provider != "cpu":
        raise HyperFormerError(
            f"the shared base in {folder} runs with the provider cpu only. Export separate bundles to use {provider}."
        )
    if precision != "float32":
        raise HyperFormerError(
            f"the shared base in {folder} is in float32 only. Export separate bundles to use {precision}."
        )
    return SharedBase(folder, threads)
