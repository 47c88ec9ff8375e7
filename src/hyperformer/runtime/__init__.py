"""Answers from exported tasks, with numpy, onnxruntime and tokenizers only.

from hyperformer.runtime import load
load("data/06_models/onnx/sentiment")({"sentence": "The film is wonderful."})
load("data/06_models/onnx")["sentiment"].answer([{"sentence": "The film is wonderful."}])
"""

from __future__ import annotations

from pathlib import Path

from hyperformer import manifest
from hyperformer.runtime.bundle import Bundle, Precision
from hyperformer.runtime.router import Bundles, places
from hyperformer.runtime.shared import SharedBundle, base_of


def load(folder: str | Path, threads: int | None = None, precision: Precision = "float32") -> Bundle | Bundles:
    """Opens an exported task, or a folder of them: there a task is asked by `[name]`, and opened when it is.

    Args:
        folder: what the export wrote.
        threads: of onnxruntime; None for its own choice.
        precision: `int8` takes the graph in int8.
    Raises:
        HyperFormerError: the folder is neither, or a file is missing or not the one that was exported.
    """
    where = Path(folder)
    if not (where / manifest.FILE).exists() and places(where):
        return Bundles(where, threads, precision)
    if (where / manifest.ADAPTER).exists():
        return SharedBundle(where, base_of(where.parent, threads, precision))
    return Bundle(where, threads, precision)


__all__ = ["Bundle", "Bundles", "load"]
