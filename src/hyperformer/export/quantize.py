"""Quantize matrix products to int8: their weights in the file, and their activations at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from hyperformer import evaluation
from hyperformer.core.manifest import GRAPH, INT8
from hyperformer.export import graphs
from hyperformer.runtime import Bundle
from hyperformer.tasks import Task

LARGEST_DROP = 0.5
"""Maximum drop of the validation metric, in percentage points; the drop that a single row causes is always accepted."""


def write(folder: Path) -> None:
    """Write the int8 graph next to the float32 graph of a folder."""
    with graphs.silence_output():  # it recommends preprocessing that the exporter has already done
        quantize_dynamic(
            folder / GRAPH,
            folder / INT8,
            weight_type=QuantType.QInt8,
            per_channel=_has_only_matrices(folder / GRAPH),  # metrics up to two points better, at the same speed
            op_types_to_quantize=["MatMul"],
            use_external_data_format=(folder / f"{GRAPH}.data").is_file(),
        )


def _has_only_matrices(path: Path) -> bool:
    """Return whether all weights of matrix products have at most two axes, as per-channel scales require."""
    graph = onnx.load(path, load_external_data=False).graph
    used = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    return all(len(weight.dims) <= 2 for weight in graph.initializer if weight.name in used)


def remove(folder: Path) -> None:
    """Remove the int8 graph of a folder."""
    for file in folder.glob(f"{INT8}*"):
        file.unlink()


def compare(task: Task, rows: Sequence[Mapping[str, Any]], bundle: Bundle, float32: float) -> dict[str, float]:
    """Compare the metric of an int8 graph with the float32 graph's, which may be at most `LARGEST_DROP` higher.

    If there are so few rows that one row changes the metric by more than `LARGEST_DROP`, allow a drop of one row.

    Args:
        task: the exported task.
        rows: every validation row.
        bundle: the task with its int8 graph.
        float32: the metric of the float32 graph, in percent.

    Returns:
        `metric` (of the int8 graph) and `float32` (of the float32 graph) in percent, and `published`: 1 if the int8
        graph is accurate enough, else 0.
    """
    metric = evaluation.compute_metrics(task, rows, bundle.answer(rows))["mean"]
    return {"metric": metric, "float32": float32, "published": float(is_accurate(metric, float32, len(rows)))}


def is_accurate(metric: float, float32: float, rows: int) -> bool:
    """Return whether a metric is close enough to that of the float32 graph, both in percent on this many rows."""
    return float32 - metric <= max(LARGEST_DROP, 100.0 / rows) + 1e-9
