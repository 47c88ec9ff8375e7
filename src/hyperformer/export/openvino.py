"""Compare the answers of OpenVINO with those of onnxruntime on the same graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperformer import evaluation
from hyperformer.core.manifest import Manifest
from hyperformer.core.types import Answer
from hyperformer.export.quantize import is_accurate
from hyperformer.runtime import Bundle, sessions
from hyperformer.runtime.variants import LARGEST_SHARE, count_changes
from hyperformer.tasks import Task


def compare(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    description: Manifest,
    expected: Sequence[Answer],
    float32: float,
) -> dict[str, float]:
    """Compare OpenVINO's answers and metric with onnxruntime's.

    Args:
        task: the exported task.
        rows: every validation row.
        folder: the task's folder.
        description: the manifest, which is not in the folder yet.
        expected: onnxruntime's answers to the rows.
        float32: onnxruntime's metric on the rows, in percent.

    Returns:
        The field `openvino` of the manifest.

    Raises:
        HyperFormerError: OpenVINO is not installed, or cannot open the graph.
    """
    answers = Bundle(folder, description=description, provider="openvino").answer(rows)
    metric = evaluation.compute_metrics(task, rows, answers)["mean"]
    changed, ties = count_changes(expected, answers)
    bf16 = sessions.choose_openvino_precision(sessions.import_openvino().Core()) == "bf16"
    published = is_accurate(metric, float32, len(rows)) and changed <= LARGEST_SHARE * len(rows)
    counts = {"rows": len(rows), "changed": changed, "ties": ties}
    return {"metric": metric, "float32": float32, **counts, "bf16": float(bf16), "published": float(published)}
