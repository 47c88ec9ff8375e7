"""The checks of the settings of an export against the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from hyperformer.core.errors import HyperFormerError, suggest_name
from hyperformer.settings import EvaluationSettings, ExportSettings
from hyperformer.tasks import Task


def check_label_scoring(evaluation: EvaluationSettings, tasks: Mapping[str, Task]) -> None:
    """Check that the exported graphs can predict as the evaluation does.

    Raises:
        HyperFormerError: The answers of a classification or regression task are generated.
    """
    if evaluation.label_scoring == "generated" and any(task.answers for task in tasks.values()):
        raise HyperFormerError(
            "evaluation.label_scoring is 'generated'; expected 'constrained' or 'likelihood', because exported "
            "graphs score the answers of classification and regression tasks. Change the setting, or evaluate "
            "without export (--tags evaluate or --pipelines evaluate)."
        )


def check_task_names(settings: ExportSettings, tasks: Mapping[str, Task]) -> None:
    """Check that `allow_below_majority` names tasks, and that `label_names` names tasks and gives them distinct labels.

    Raises:
        HyperFormerError: A task or label does not exist, a task has no labels to rename, or two of its labels would be
            equal.
    """
    for setting in ("allow_below_majority", "label_names"):
        for name in getattr(settings, setting):
            if name not in tasks:
                raise HyperFormerError(f"export.{setting} has the unknown task {name!r}; {suggest_name(name, tasks)}")
    for name, labels in settings.label_names.items():
        _check_labels(tasks[name], labels)


def check_openvino(settings: ExportSettings) -> None:
    """Check that OpenVINO is installed, if `export.openvino` is set.

    Raises:
        HyperFormerError: it is not.
    """
    if settings.openvino and find_spec("openvino") is None:
        raise HyperFormerError(
            "export.openvino is true; expected the package openvino, which is not installed. Install hyperformer with "
            "the extra 'openvino', or set export.openvino to false."
        )


def _check_labels(task: Task, names: Mapping[str, str]) -> None:
    """Check the new names of a task's labels."""
    if not task.answers or task.numbers is not None:
        raise HyperFormerError(
            f"export.label_names has the {task.settings.kind} task {task.name!r}; expected a classification task. "
            "Remove it."
        )
    for label in names:
        if label not in task.answers:
            raise HyperFormerError(
                f"export.label_names.{task.name} has the unknown label {label!r}; {suggest_name(label, task.answers)}"
            )
    shown: dict[str, str] = {}
    for label in task.answers:
        other = shown.setdefault(names.get(label, label), label)
        if other != label:
            raise HyperFormerError(
                f"export.label_names.{task.name} shows both {other!r} and {label!r} as {names.get(label, label)!r}; "
                "expected a different name for each label. Change one of them, or train with merge_labels."
            )
