"""Kinds of tasks. A kind is a module with its settings, its class, and a call of `register_task`."""

from hyperformer.tasks.base import TASK_TYPES, LabelError, Task, make_tasks, register_task
from hyperformer.tasks.classification import Classification, ClassificationSettings
from hyperformer.tasks.generation import Generation, GenerationSettings
from hyperformer.tasks.regression import Regression, RegressionSettings

__all__ = [
    "TASK_TYPES",
    "Classification",
    "ClassificationSettings",
    "Generation",
    "GenerationSettings",
    "LabelError",
    "Regression",
    "RegressionSettings",
    "Task",
    "make_tasks",
    "register_task",
]
