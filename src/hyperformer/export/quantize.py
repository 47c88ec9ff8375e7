"""The graph in int8: weights of products as 8-bit integers, activations quantized as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from hyperformer import evaluation
from hyperformer.export import graphs
from hyperformer.manifest import GRAPH, INT8
from hyperformer.runtime import Bundle
from hyperformer.tasks import Task

ALLOWED = 0.5
"""Points that the validation metric may fall by, where one row is no more."""


def write(folder: Path) -> None:
    """Writes the int8 graph beside the graph of a folder."""
    with graphs.quiet():  # it recommends a preprocessing that the exporter has done
        quantize_dynamic(
            folder / GRAPH,
            folder / INT8,
            weight_type=QuantType.QInt8,
            per_channel=_flat(folder / GRAPH),  # a scale a column: up to two points better, and as fast
            op_types_to_quantize=["MatMul"],
            use_external_data_format=(folder / f"{GRAPH}.data").is_file(),
        )


def _flat(path: Path) -> bool:
    """Whether every weight of a product is a matrix: onnxruntime knows a scale a column of no others."""
    graph = onnx.load(path, load_external_data=False).graph
    used = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    return all(len(weight.dims) <= 2 for weight in graph.initializer if weight.name in used)


def judge(task: Task, folder: Path, rows: Sequence[Mapping[str, Any]], float32: float) -> dict[str, float]:
    """Keeps the int8 graph if its metric is near enough to the graph's own, and removes it otherwise.

    Args:
        rows: every validation row.
        float32: the graph's own metric, in percent.
    Returns:
        `metric` and `float32` in percent, and whether it is `published`, 1 or 0.
    """
    metric = evaluation.metrics(task, rows, Bundle(folder, precision="int8").answer(rows))["mean"]
    published = float32 - metric <= max(ALLOWED, 100.0 / len(rows)) + 1e-9
    for file in () if published else folder.glob(f"{INT8}*"):
        file.unlink()
    return {"metric": metric, "float32": float32, "published": float(published)}
