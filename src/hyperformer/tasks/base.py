"""Base class of the task kinds: conversion of rows to examples, possible answers, and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer, Example
from hyperformer.settings import Tasks, TaskSettings
from hyperformer.settings.tasks import TASK_SETTINGS

Metric = Callable[[Sequence[Any], Sequence[Any], int], float]
"""A function (true labels, predictions, number of answers of the task) → a number from -1 to 1."""


class LabelError(HyperFormerError):
    """A label that a task does not have.

    Attributes:
        label: Text of the label.
        known: The labels of the task, for messages.
        advice: What to do.
    """

    def __init__(self, column: str, label: str, known: str, advice: str) -> None:
        super().__init__(f"the label in column {column!r} is {label!r}, expected one of {known}. {advice}")
        self.label, self.known, self.advice = label, known, advice


class Task(ABC):
    """Base class of tasks, which convert rows to source texts and answers, and compute metrics.

    Attributes:
        answers: Answer texts, in the order of the scores; empty for generative tasks.
        numbers: Numeric value of each answer of a regression task; None for other tasks.
    """

    METRICS: ClassVar[dict[str, Metric]]

    def __init__(self, name: str, settings: TaskSettings) -> None:
        self.name, self.settings = name, settings
        try:
            self.text_columns = text.find_columns(settings.text)
        except HyperFormerError as error:
            raise HyperFormerError(f"task {name!r}: {error}") from None
        unknown = [metric for metric in settings.metrics if metric not in self.METRICS]
        if unknown:
            known = ", ".join(self.METRICS)
            raise HyperFormerError(
                f"task {name!r}: unknown metric {unknown[0]!r}; a {settings.kind} task supports {known}"
            )
        self.answers, self.numbers = self._answers()

    @property
    def missing(self) -> Literal["empty"] | None:
        """`empty` if a value that is null or missing is an empty text; None if it is an error."""
        return "empty" if self.settings.missing == "empty" else None

    def _answers(self) -> tuple[list[str], list[float] | None]:
        return [], None

    @abstractmethod
    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the expected answer of a row.

        Raises:
            HyperFormerError: The label is invalid for the task.
        """

    @abstractmethod
    def read_label(self, row: Mapping[str, Any]) -> Any:
        """Return the label of a row in the form that the metrics expect."""

    @abstractmethod
    def to_prediction(self, answer: Answer) -> Any:
        """Return an answer in the form that the metrics expect."""

    def make_example(self, row: Mapping[str, Any]) -> Example:
        """Convert a row to its source text and expected answer."""
        answer = self.answer_text(row)
        label = self.answers.index(answer) if self.answers else None
        return Example(self.name, text.render(self.settings.text, row, self.missing), answer, label)

    def measure_ranking(self, truths: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        """Measure how well the probabilities rank the rows, in percent; empty if the task has no such measure."""
        return {}

    def compute_metrics(self, truths: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        """Return the metrics of the task, in percent."""
        return {
            name: 100.0 * self.METRICS[name](truths, predictions, len(self.answers)) for name in self.settings.metrics
        }


TASK_TYPES: dict[str, type[Task]] = {}
"""The class of each registered kind of task."""


def register_task(kind: str, settings: type[TaskSettings], task: type[Task]) -> None:
    """Register a kind of task, so that tasks with this `kind` have its settings and class.

    Raises:
        ValueError: another kind has this name.
    """
    if TASK_TYPES.get(kind, task) is not task:
        raise ValueError(f"the task kind {kind!r} is registered already; choose another name")
    TASK_SETTINGS.register(kind, settings)
    TASK_TYPES[kind] = task


def make_tasks(settings: Tasks) -> dict[str, Task]:
    """Return the tasks of a configuration by name, in its order.

    Raises:
        HyperFormerError: The text template of a task is invalid, or one of its metrics is unknown.
    """
    return {name: TASK_TYPES[task.kind](name, task) for name, task in settings.root.items()}
