"""Export each task as a bundle, a folder with its graphs or adapter, and verify it against PyTorch."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hyperformer
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import folder_sha256
from hyperformer.core.manifest import Manifest
from hyperformer.core.progress import track
from hyperformer.data.storage import Writer, read_rows
from hyperformer.export import TARGETS, SharedBaseTarget
from hyperformer.export.target import Target
from hyperformer.model.task_models import TaskModels
from hyperformer.settings import EvaluationSettings, ExportSettings
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

CODE_PATHS = (
    "backbones",
    "core",
    "data",
    "evaluation.py",
    "export",
    "methods",
    "model",
    "runtime",
    "settings",
    "tasks",
)
"""Modules and packages of `hyperformer` whose code can change the bytes of a bundle."""


def export(
    checkpoint: Path, rows: Path, metrics: Mapping[str, Any], settings: ExportSettings, evaluation: EvaluationSettings
) -> Writer:
    """Export every task of a checkpoint to a separate bundle.

    Args:
        checkpoint: a checkpoint folder.
        rows: the folder of each task's rows; the graphs are compared with PyTorch on every validation row.
        metrics: the checkpoint's metrics: split → task → metric → percent.
        settings: settings of the graphs and of their comparison with PyTorch.
        evaluation: settings of the evaluation that computed the metrics; the graphs predict with the same settings.

    Returns:
        A function that writes a folder `<task>/` for each task; it raises `HyperFormerError` if an exported task
        differs from PyTorch.
    """
    trained = TaskModels.from_pretrained(checkpoint)
    targets = {name: TARGETS[task.settings.kind] for name, task in trained.tasks.items()}
    return _export(trained, targets, checkpoint, rows, metrics, settings, evaluation)


def export_shared_base(
    checkpoint: Path, rows: Path, metrics: Mapping[str, Any], settings: ExportSettings, evaluation: EvaluationSettings
) -> Writer:
    """Export the classification and regression tasks of a checkpoint to bundles with one shared graph.

    Args:
        checkpoint: a checkpoint folder.
        rows: the folder of each task's rows; the graph is compared with PyTorch on every validation row.
        metrics: the checkpoint's metrics: split → task → metric → percent.
        settings: settings of the graphs and of their comparison with PyTorch.
        evaluation: settings of the evaluation that computed the metrics; the graph predicts with the same settings.

    Returns:
        A function that writes the shared graph, and a folder `<task>/` for each task; it raises `HyperFormerError` if
        the checkpoint's method trains the backbone, or if an exported task differs from PyTorch.

    Raises:
        HyperFormerError: the checkpoint has fewer than two classification and regression tasks.
    """
    trained = TaskModels.from_pretrained(checkpoint)
    targets: dict[str, type[Target]] = dict.fromkeys(trained.first.answers, SharedBaseTarget)
    if len(targets) < 2:
        raise HyperFormerError(
            f"classification and regression tasks in the checkpoint: {len(targets)}; expected at least 2 for a shared "
            "base. Export separate bundles instead."
        )
    left_out = [name for name in trained.tasks if name not in targets]
    if left_out:
        log.info("%s: not exported to the shared base, because generative tasks cannot use it", ", ".join(left_out))
    return _export(trained, targets, checkpoint, rows, metrics, settings, evaluation)


def _export(
    trained: TaskModels,
    chosen: Mapping[str, type[Target]],
    checkpoint: Path,
    rows: Path,
    metrics: Mapping[str, Any],
    settings: ExportSettings,
    evaluation: EvaluationSettings,
) -> Writer:
    """Return a function that writes each task with its target in `chosen`."""
    _check_metrics(metrics, chosen)
    made_from = {
        "code": _hash_code(),
        "parameters": _hash([settings.model_dump(), evaluation.model_dump()]),
        "checkpoint": folder_sha256(checkpoint),
    }
    targets = {kind: kind(trained, settings, evaluation) for kind in dict.fromkeys(chosen.values())}

    def write(folder: Path) -> None:
        shared = {
            kind: target.write_shared([trained.tasks[name] for name in chosen if chosen[name] is kind], folder)
            for kind, target in targets.items()
        }
        for name, kind in track(chosen.items(), "exporting", len(chosen)):
            began = time.monotonic()
            (folder / name).mkdir()
            hashes = {**made_from, "data": folder_sha256(rows / name), **shared[kind]}
            bundle = _write_bundle(targets[kind], trained.tasks[name], rows, metrics, hashes, folder / name)
            size = sum(path.stat().st_size for path in (folder / name).rglob("*.onnx*")) / 1e6
            log.info(
                "%s: %.1f MB, %d rows equal to PyTorch within %.0e, %d ties%s, %.1f s",
                name, size, bundle.parity["rows"], bundle.parity["largest_difference"], bundle.parity["ties"],
                _format_int8(bundle.int8), time.monotonic() - began,
            )  # fmt: skip

    return write


def _check_metrics(metrics: Mapping[str, Any], tasks: Iterable[str]) -> None:
    for name in tasks:
        for split in ("validation", "test"):
            if name not in metrics.get(split, {}):
                raise HyperFormerError(
                    f"there are no {split} metrics of the task {name!r}; expected those of every task of the "
                    "checkpoint. Evaluate the checkpoint first (pipeline evaluate)."
                )


def _format_int8(int8: Mapping[str, float]) -> str:
    if not int8:
        return ""
    note = "" if int8["published"] else ", not published"
    return f", int8 {int8['metric'] - int8['float32']:+.2f} points{note}"


def _write_bundle(
    target: Target, task: Task, rows: Path, metrics: Mapping[str, Any], made_from: dict[str, str], folder: Path
) -> Manifest:
    target.write(task, folder)
    description = target.describe(task, folder, metrics["test"][task.name], made_from)
    validation = list(read_rows(rows, task.name, "validation"))
    results = target.check(task, folder, validation, metrics["validation"][task.name], description)
    return target.finish(folder, replace(description, parity=results["parity"], int8=results.get("int8", {})))


def _hash_code() -> str:
    package = Path(hyperformer.__file__).parent
    return _hash({name: folder_sha256(package / name) for name in CODE_PATHS})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
