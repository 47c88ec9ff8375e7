"""Export each task as a bundle, a folder with its graphs or adapter, and verify it against PyTorch."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from hyperformer.quality import BelowMajority, find_below_majority
from hyperformer.settings import EvaluationSettings, ExportSettings
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

EXAMPLE_ROWS = 10
"""Number of rows that an example is chosen from."""
CODE_PATHS = (
    "backbones",
    "core",
    "data",
    "evaluation.py",
    "export",
    "methods",
    "model",
    "quality.py",
    "runtime",
    "settings",
    "tasks",
)
"""Modules and packages of `hyperformer` whose code can change the bytes of a bundle."""


def export(
    checkpoint: Path,
    rows: Path,
    metrics: Mapping[str, Any],
    baselines: Mapping[str, Any],
    settings: ExportSettings,
    evaluation: EvaluationSettings,
    shared_base: bool = False,
) -> Writer:
    """Export every task of a checkpoint to a separate bundle, or to bundles with one shared graph.

    A task whose model is no better than the majority baseline on validation is exported, but not published, unless
    `settings.allow_below_majority` lists it.

    Args:
        checkpoint: a checkpoint folder.
        rows: the folder of each task's rows; the graphs are compared with PyTorch on every validation row.
        metrics: the checkpoint's metrics: split → task → metric → percent.
        baselines: the baselines' metrics: split → task → baseline → metric → percent.
        settings: settings of the graphs and of their comparison with PyTorch.
        evaluation: settings of the evaluation that computed the metrics; the graphs predict with the same settings.
        shared_base: export the classification and regression tasks on one shared graph, and no generative tasks.

    Returns:
        A function that writes a folder `<task>/` for each task and, with `shared_base`, the shared graph; it raises
        `HyperFormerError` if an exported task differs from PyTorch, or if the checkpoint's method trains the backbone
        that the tasks are to share.

    Raises:
        HyperFormerError: metrics or baselines of a task are missing; or, with `shared_base`, the checkpoint has fewer
            than two classification and regression tasks.
    """
    trained = TaskModels.from_pretrained(checkpoint)
    chosen = _choose_shared(trained) if shared_base else _choose_separate(trained)
    tasks = {name: trained.tasks[name] for name in chosen}
    results = _collect_results(metrics, baselines, tasks, settings.allow_below_majority)
    made_from = {
        "code": _hash_code(),
        "checkpoint": folder_sha256(checkpoint),
    }
    targets = {kind: kind(trained, settings, evaluation) for kind in dict.fromkeys(chosen.values())}

    def write(folder: Path) -> None:
        shared = {
            kind: target.write_shared([task for name, task in tasks.items() if chosen[name] is kind], folder)
            for kind, target in targets.items()
        }
        for name, kind in track(chosen.items(), "exporting", len(chosen)):
            began = time.monotonic()
            (folder / name).mkdir()
            parameters = _hash([_list_settings(settings, name), evaluation.model_dump()])
            hashes = {**made_from, "parameters": parameters, "data": folder_sha256(rows / name), **shared[kind]}
            bundle = _write_bundle(targets[kind], tasks[name], rows, results[name], hashes, folder / name)
            _log_bundle(folder / name, bundle, time.monotonic() - began, results[name].below)

    return write


export_shared_base = partial(export, shared_base=True)
"""Export the classification and regression tasks of a checkpoint to bundles with one shared graph."""


@dataclass(frozen=True)
class Results:
    """The metrics of a task that its bundle is checked with, published by or described with, in percent."""

    validation: Mapping[str, float]
    test: Mapping[str, float]
    baselines: dict[str, float]
    """Mean test metric of each baseline."""
    below: BelowMajority | None
    """The means that are the reason not to publish the bundle; None if it is published."""


def _collect_results(
    metrics: Mapping[str, Any], baselines: Mapping[str, Any], tasks: Mapping[str, Task], allowed: Collection[str]
) -> dict[str, Results]:
    """Return the results of each task.

    Raises:
        HyperFormerError: metrics or baselines of a task are missing.
    """
    _check_results("metrics", metrics, tasks, "Evaluate the checkpoint first (pipeline evaluate).")
    _check_results("baselines", baselines, tasks, "Compute them first (pipeline baselines).")
    below = find_below_majority(metrics, baselines, tasks, allowed)
    return {
        name: Results(
            metrics["validation"][name],
            metrics["test"][name],
            {baseline: scores["mean"] for baseline, scores in baselines["test"][name].items()},
            below.get(name),
        )
        for name in tasks
    }


def _choose_separate(trained: TaskModels) -> dict[str, type[Target]]:
    """Return the export target of each task without a shared base."""
    return {name: TARGETS[task.settings.kind] for name, task in trained.tasks.items()}


def _choose_shared(trained: TaskModels) -> dict[str, type[Target]]:
    """Return the export target of each task on a shared base."""
    targets: dict[str, type[Target]] = dict.fromkeys(trained.first.answers, SharedBaseTarget)
    if len(targets) < 2:
        raise HyperFormerError(
            f"classification and regression tasks in the checkpoint: {len(targets)}; expected at least 2 for a shared "
            "base. Export separate bundles instead."
        )
    left_out = [name for name in trained.tasks if name not in targets]
    if left_out:
        log.info("%s: not exported to the shared base, because generative tasks cannot use it", ", ".join(left_out))
    return targets


def _check_results(kind: str, results: Mapping[str, Any], tasks: Iterable[str], advice: str) -> None:
    """Check that there are results of each task on validation and test."""
    for name in tasks:
        for split in ("validation", "test"):
            if name not in results.get(split, {}):
                raise HyperFormerError(
                    f"there are no {split} {kind} of the task {name!r}; expected those of every task of the "
                    f"checkpoint. {advice}"
                )


def _log_bundle(folder: Path, bundle: Manifest, seconds: float, below: BelowMajority | None) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*.onnx*")) / 1e6
    log.info(
        "%s: %.1f MB, %d rows equal to PyTorch within %.0e, %d ties%s%s, %.1f s",
        bundle.task, size, bundle.parity["rows"], bundle.parity["largest_difference"], bundle.parity["ties"],
        _format_variant("int8", bundle.int8), _format_variant("OpenVINO", bundle.openvino), seconds,
    )  # fmt: skip
    if below:
        log.warning(
            "%s: not published, because its mean validation metric is %.2f and the majority baseline's is %.2f; add "
            "rows, train longer, or list the task in export.allow_below_majority",
            bundle.task, below.model, below.majority,
        )  # fmt: skip


def _format_variant(name: str, result: Mapping[str, float]) -> str:
    if not result:
        return ""
    note = "" if result["published"] else ", not published"
    return f", {name} {result['metric'] - result['float32']:+.2f} points{note}"


def _write_bundle(
    target: Target, task: Task, rows: Path, results: Results, made_from: dict[str, str], folder: Path
) -> Manifest:
    target.write(task, folder)
    description = replace(
        target.describe(task, folder, results.test, made_from),
        baselines=results.baselines,
        published=results.below is None,
    )
    validation = list(read_rows(rows, task.name, "validation"))
    checks = target.check(task, folder, validation, results.validation, description)
    names = target.settings.label_names.get(task.name, {})
    labels = [names.get(label, label) for label in description.labels]  # the check needs the trained labels
    return target.finish(
        folder,
        replace(
            description,
            labels=labels,
            example=_choose_example(task, validation) if target.settings.examples else {},
            parity=checks["parity"],
            int8=checks.get("int8", {}),
            openvino=checks.get("openvino", {}),
        ),
    )


def _choose_example(task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the texts of the shortest of the first rows."""
    examples = [{column: str(row[column]) for column in task.text_columns} for row in rows[:EXAMPLE_ROWS]]
    return min(examples, key=lambda texts: sum(map(len, texts.values())))


def _list_settings(settings: ExportSettings, task: str) -> dict[str, Any]:
    """Return the settings of the export that concern a task."""
    others = settings.model_dump(exclude={"label_names", "allow_below_majority"})
    allowed = task in settings.allow_below_majority
    return {**others, "label_names": settings.label_names.get(task, {}), "allow_below_majority": allowed}


def _hash_code() -> str:
    package = Path(hyperformer.__file__).parent
    return _hash({name: folder_sha256(package / name) for name in CODE_PATHS})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
