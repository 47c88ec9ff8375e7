"""The check that the settings are those that a checkpoint was trained with; it does not import PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperformer.core.errors import HyperFormerError
from hyperformer.model.checkpoint import read_checkpoint
from hyperformer.settings import BackboneSettings, MethodSettings, Settings, Tasks

UNUSED = {"source", "splits", "weight"}
"""Settings of a task that are not used after training."""


class _Absent:
    """The value of a setting that a tree does not have."""

    def __repr__(self) -> str:
        return "missing"


ABSENT = _Absent()
Difference = tuple[list[str], Any, Any]
"""The path of a setting, its value in the settings, and its value in the checkpoint."""


def check_checkpoint(settings: Settings, path: str, adapted: bool) -> None:
    """Check that the settings of tasks, backbone and method are those of a checkpoint.

    Args:
        settings: All settings.
        path: Path of the checkpoint.
        adapted: The pipeline `transfer` wrote the checkpoint; its backbone and method are not those of the settings.

    Raises:
        HyperFormerError: The checkpoint cannot be read, or a setting differs; the message names the first difference.
    """
    checkpoint = read_checkpoint(path)
    difference = _compare(_dump_tasks(settings.tasks), _dump_tasks(checkpoint.tasks), ["tasks"])
    if difference is None and not adapted:
        backbone = checkpoint.backbone
        if Path(backbone.path).resolve() == Path(settings.backbone.path).resolve():
            backbone = backbone.model_copy(update={"path": settings.backbone.path})
        difference = _compare(
            _dump_model(settings.backbone, settings.chosen_method), _dump_model(backbone, checkpoint.method), []
        )
    if difference is not None:
        raise HyperFormerError(_describe(difference, path))


def _dump_tasks(tasks: Tasks) -> dict[str, Any]:
    return {name: task.model_dump(exclude=UNUSED) for name, task in tasks.root.items()}


def _dump_model(backbone: BackboneSettings, method: MethodSettings) -> dict[str, Any]:
    methods = {method.name: method.settings.model_dump()}
    return {"backbone": backbone.model_dump(), "method": method.name, "methods": methods}


def _compare(current: Any, trained: Any, path: list[str]) -> Difference | None:
    """Return the first difference of two trees of settings, or None; the order of a task's labels also counts."""
    if not (isinstance(current, Mapping) and isinstance(trained, Mapping)):
        return None if current == trained else (path, current, trained)
    for name in {**trained, **current}:
        difference = _compare(current.get(name, ABSENT), trained.get(name, ABSENT), [*path, name])
        if difference is not None:
            return difference
    is_ordered = path != ["tasks"]
    return (path, list(current), list(trained)) if is_ordered and list(current) != list(trained) else None


def _format(value: Any) -> str:
    return "null" if value is None else repr(list(value) if isinstance(value, tuple) else value)


def _describe(difference: Difference, checkpoint: str) -> str:
    path, current, trained = difference
    setting, is_task = ".".join(path), len(path) == 2 and path[0] == "tasks"
    if is_task:
        current, trained = ("missing" if value is ABSENT else "present" for value in (current, trained))
    else:
        current, trained = _format(current), _format(trained)
    is_label = path[0] == "tasks" and path[2:3] == ["labels"]
    rename = ", or set export.label_names to show another label" if is_label else ""
    return (
        f"{setting} is {current} in the settings and {trained} in the checkpoint {checkpoint}; expected the settings "
        f"of the training. Train again, or restore the {'task' if is_task else 'value'}{rename}."
    )
