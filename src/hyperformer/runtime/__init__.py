"""Run exported tasks with numpy, onnxruntime and tokenizers only.

from hyperformer.runtime import load
load("data/06_models/onnx/sentiment")({"sentence": "The film is wonderful."})
load("data/06_models/onnx")["sentiment"].answer([{"sentence": "The film is wonderful."}])
"""

from __future__ import annotations

from pathlib import Path

from hyperformer.core import manifest
from hyperformer.runtime.bundle import Bundle, Precision
from hyperformer.runtime.router import Bundles, find_bundles
from hyperformer.runtime.sessions import Provider
from hyperformer.runtime.shared import SharedBundle, load_base


def load(
    folder: str | Path,
    threads: int | None = None,
    precision: Precision = "float32",
    allow_unpublished: bool = False,
    provider: Provider = "cpu",
) -> Bundle | Bundles:
    """Load an exported task, or a folder of exported tasks.

    Args:
        folder: a folder that an export wrote.
        threads: number of CPU threads; None for the provider's default.
        precision: the graph to load, `float32` or `int8`.
        allow_unpublished: also load a bundle that is not published, because its model is no better than the majority
            baseline.
        provider: `cpu` and `cuda` run the graph with onnxruntime, `openvino` with OpenVINO on the CPU, in bf16 if the
            CPU has instructions for it.

    Returns:
        The bundle of the task; or, for a folder of tasks, a mapping of the names of the tasks' folders to bundles, each
        of which is loaded when it is first used.

    Raises:
        HyperFormerError: the folder is neither an exported task nor a folder of exported tasks, the bundle is not
            published, a file is missing or was changed after the export, the task is generative, an option is invalid,
            there is no int8 graph, or the provider is not installed or its answers differ too much. In a folder of
            tasks, an error of one task is raised when the task is first used.
    """
    path = Path(folder)
    if not (path / manifest.MANIFEST).is_file() and find_bundles(path):
        return Bundles(path, threads, precision, allow_unpublished, provider)
    if (path / manifest.ADAPTER).is_file():
        return SharedBundle(
            path, load_base(path.parent, threads, precision, provider), allow_unpublished=allow_unpublished
        )
    return Bundle(path, threads, precision, allow_unpublished=allow_unpublished, provider=provider)


__all__ = ["Bundle", "Bundles", "load"]
