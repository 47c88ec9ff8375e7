"""Bundles: for each task its graph, tokenizer and manifest, checked against torch before they are published."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hyperformer
from hyperformer import manifest, text
from hyperformer.config import ExportSettings
from hyperformer.data import Writer, read_rows
from hyperformer.export import TARGETS, parity
from hyperformer.manifest import Manifest
from hyperformer.model import MultiTaskModel
from hyperformer.progress import watched
from hyperformer.runtime import load
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

ROOMS = (
    "backbones",
    "config.py",
    "data.py",
    "export",
    "manifest.py",
    "methods",
    "model.py",
    "progress.py",
    "runtime",
    "tasks",
    "text.py",
    "types.py",
)
"""The code that a bundle's bytes depend on, besides its checkpoint."""


def export(
    checkpoint: Path, rows: Path, metrics: Mapping[str, Any], settings: ExportSettings, batch_size: int
) -> Writer:
    """Exports every task of a checkpoint.

    Args:
        checkpoint: a checkpoint folder.
        rows: the folder of checked rows; parity runs over every validation row.
        metrics: split → task → metric → percent, of the checkpoint.
        batch_size: rows answered at once by torch.
    Returns:
        What writes a folder `<task>/` for each.
    """
    trained = MultiTaskModel.from_pretrained(checkpoint)
    made_from = {
        "code": _code(),
        "parameters": _hash(settings.model_dump()),
        "checkpoint": manifest.folder_sha256(checkpoint),
    }

    def write(folder: Path) -> None:
        exported = {name: task for name, task in trained.tasks.items() if task.settings.kind in TARGETS}
        for name in trained.tasks.keys() - exported.keys():
            log.warning("%s: tasks of kind %s are not exported", name, trained.tasks[name].settings.kind)
        for name, task in watched(exported.items(), "exporting", len(exported)):
            began = time.monotonic()
            (folder / name).mkdir()
            made = {**made_from, "data": manifest.folder_sha256(rows / name)}
            found = _task(trained, task, rows, metrics["test"][name], settings, batch_size, made, folder / name)
            size = (folder / name / "model.onnx").stat().st_size / 1e6
            log.info(
                "%s: %.1f MB, %d rows equal to torch within %.0e, %d ties, %.1f s",
                name, size, found["rows"], found["largest_difference"], found["ties"],
                time.monotonic() - began,
            )  # fmt: skip

    return write


def _task(
    trained: MultiTaskModel,
    task: Task,
    rows: Path,
    metrics: Mapping[str, float],
    settings: ExportSettings,
    batch_size: int,
    made_from: dict[str, str],
    folder: Path,
) -> dict[str, float]:
    baked = trained.bake(task.name)
    TARGETS[task.settings.kind](baked, task, settings, folder)
    described = Manifest(
        format=manifest.FORMAT,
        task=task.name,
        kind=task.settings.kind,
        text=task.settings.text,
        labels=task.answers,
        numbers=task.numbers,
        max_source_tokens=trained.backbone_settings.max_source_tokens,
        opset=settings.opset,
        backbone=trained.backbone_settings.path,
        method=trained.method_settings.name,
        files={path.name: manifest.sha256(path) for path in sorted(folder.iterdir())},
        parity={},
        metrics=dict(metrics),
        made_from=made_from,
    )
    described.write(folder)
    sources = [text.render(task.settings.text, row) for row in read_rows(rows, task.name, "validation")]
    expected = trained.scores(task.name, sources, batch_size)
    found = parity.compare(expected, load(folder), sources, settings.tolerance)
    Manifest(**{**vars(described), "parity": found}).write(folder)
    return found


def _code() -> str:
    here = Path(hyperformer.__file__).parent
    return _hash({room: manifest.folder_sha256(here / room) for room in ROOMS})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
