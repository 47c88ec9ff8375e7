"""Bundles: for each task its graph, tokenizer and manifest, checked against torch before they are published."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hyperformer
from hyperformer import manifest
from hyperformer.config import EvaluationSettings, ExportSettings
from hyperformer.data import Writer, read_rows
from hyperformer.export import TARGETS, SharedBase, card
from hyperformer.export.target import Target
from hyperformer.manifest import Manifest
from hyperformer.model import MultiTaskModel
from hyperformer.progress import watched
from hyperformer.tasks import Task
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

ROOMS = (
    "backbones",
    "config.py",
    "data.py",
    "evaluation.py",
    "export",
    "manifest.py",
    "methods",
    "model.py",
    "prefix.py",
    "progress.py",
    "runtime",
    "tasks",
    "text.py",
    "types.py",
)
"""The code that a bundle's bytes depend on, besides its checkpoint."""


def export(
    checkpoint: Path, rows: Path, metrics: Mapping[str, Any], settings: ExportSettings, evaluation: EvaluationSettings
) -> Writer:
    """Exports every task of a checkpoint.

    Args:
        checkpoint: a checkpoint folder.
        rows: the folder of checked rows; every validation row is compared.
        metrics: split → task → metric → percent, of the checkpoint.
        evaluation: how the metrics came about; the graphs answer in the same way.
    Returns:
        What writes a folder `<task>/` for each.
    """
    trained = MultiTaskModel.from_pretrained(checkpoint)
    targets = {name: TARGETS[task.settings.kind] for name, task in trained.tasks.items()}
    return _exported(trained, targets, checkpoint, rows, metrics, settings, evaluation)


def export_shared_base(
    checkpoint: Path, rows: Path, metrics: Mapping[str, Any], settings: ExportSettings, evaluation: EvaluationSettings
) -> Writer:
    """Exports the tasks of a checkpoint whose answers are given on one base; arguments as of `export`.

    Returns:
        What writes the base, and a folder `<task>/` for each.
    Raises:
        HyperFormerError: the method trains the backbone itself, or fewer than two tasks' answers are given.
    """
    trained = MultiTaskModel.from_pretrained(checkpoint)
    targets: dict[str, type[Target]] = dict.fromkeys(trained.answers, SharedBase)
    if len(targets) < 2:
        raise HyperFormerError(
            f"the checkpoint has {len(targets)} tasks whose answers are given, expected at least two to share a base; "
            "export bundles"
        )
    left_out = [name for name in trained.tasks if name not in targets]
    if left_out:
        log.info("%s: answers are written, so not on the shared base", ", ".join(left_out))
    return _exported(trained, targets, checkpoint, rows, metrics, settings, evaluation)


def _exported(
    trained: MultiTaskModel,
    chosen: Mapping[str, type[Target]],
    checkpoint: Path,
    rows: Path,
    metrics: Mapping[str, Any],
    settings: ExportSettings,
    evaluation: EvaluationSettings,
) -> Writer:
    """What writes tasks by the target that is chosen for each."""
    made_from = {
        "code": _code(),
        "parameters": _hash([settings.model_dump(), evaluation.model_dump()]),
        "checkpoint": manifest.folder_sha256(checkpoint),
    }
    targets = {kind: kind(trained, settings, evaluation) for kind in dict.fromkeys(chosen.values())}

    def write(folder: Path) -> None:
        shared = {
            kind: target.begin([trained.tasks[name] for name in chosen if chosen[name] is kind], folder)
            for kind, target in targets.items()
        }
        for name, kind in watched(chosen.items(), "exporting", len(chosen)):
            began = time.monotonic()
            (folder / name).mkdir()
            made = {**made_from, "data": manifest.folder_sha256(rows / name), **shared[kind]}
            found = _task(targets[kind], trained.tasks[name], rows, metrics, made, folder / name)
            size = sum(path.stat().st_size for path in (folder / name).rglob("*.onnx*")) / 1e6
            log.info(
                "%s: %.1f MB, %d rows equal to torch within %.0e, %d ties%s, %.1f s",
                name, size, found.parity["rows"], found.parity["largest_difference"], found.parity["ties"],
                _said(found.int8), time.monotonic() - began,
            )  # fmt: skip

    return write


def _said(int8: Mapping[str, float]) -> str:
    if not int8:
        return ""
    kept = "" if int8["published"] else ", not published"
    return f", int8 {int8['metric'] - int8['float32']:+.2f} points{kept}"


def _task(
    target: Target, task: Task, rows: Path, metrics: Mapping[str, Any], made_from: dict[str, str], folder: Path
) -> Manifest:
    trained = target.model
    target.write(task, folder)
    described = Manifest(
        format=manifest.FORMAT,
        task=task.name,
        kind=task.settings.kind,
        text=trained.backbone.template(task.settings.text),
        labels=task.answers,
        numbers=task.numbers,
        max_source_tokens=trained.backbone_settings.max_source_tokens,
        opset=target.settings.opset,
        backbone=trained.backbone_settings.path,
        method=trained.method_settings.name,
        files=_files(folder),
        parity={},
        int8={},
        metrics=metrics["test"][task.name],
        made_from=made_from,
    )
    validation = list(read_rows(rows, task.name, "validation"))
    found = target.check(task, folder, validation, metrics["validation"][task.name], described)
    described = replace(described, parity=found["parity"], int8=found.get("int8", {}))
    (folder / manifest.CARD).write_text(card.text_of(described), encoding="utf-8")
    described = replace(described, files=_files(folder))
    described.write(folder)
    return described


def _files(folder: Path) -> dict[str, str]:
    """The sha256 of every file but the manifest, by its path in the folder."""
    listed = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != manifest.FILE)
    return {path.relative_to(folder).as_posix(): manifest.sha256(path) for path in listed}


def _code() -> str:
    here = Path(hyperformer.__file__).parent
    return _hash({room: manifest.folder_sha256(here / room) for room in ROOMS})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
