"""Task kinds. A new kind is one file here and one line in `KINDS`."""

from __future__ import annotations

from hyperformer.config import Tasks
from hyperformer.tasks.base import Task
from hyperformer.tasks.classification import Classification
from hyperformer.tasks.generation import Generation
from hyperformer.tasks.regression import Regression

KINDS: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "generation": Generation,
}


def make(settings: Tasks) -> dict[str, Task]:
    """The tasks of a configuration, by name and in its order.

    Raises:
        HyperFormerError: a task's text or one of its metrics cannot be used.
    """
    return {name: KINDS[task.kind](name, task) for name, task in settings.root.items()}


__all__ = ["KINDS", "Task", "make"]
