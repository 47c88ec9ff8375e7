"""Task kinds. A new kind needs a module here, an entry in `TASK_TYPES`, and a value of `TaskSettings.kind`."""

from __future__ import annotations

from hyperformer.settings import Tasks
from hyperformer.tasks.base import Task
from hyperformer.tasks.classification import Classification
from hyperformer.tasks.generation import Generation
from hyperformer.tasks.regression import Regression

TASK_TYPES: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "generation": Generation,
}


def make_tasks(settings: Tasks) -> dict[str, Task]:
    """Return the tasks of a configuration by name, in its order.

    Raises:
        HyperFormerError: The text template of a task is invalid, or one of its metrics is unknown.
    """
    return {name: TASK_TYPES[task.kind](name, task) for name, task in settings.root.items()}


__all__ = ["TASK_TYPES", "Task", "make_tasks"]
