"""What every task kind does: read rows, name its answers, score answers against the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from hyperformer import text
from hyperformer.config import TaskSettings
from hyperformer.types import Answer, Example, HyperFormerError

Metric = Callable[[Sequence[Any], Sequence[Any], int], float]
"""(truths, predictions, how many answers the task has) → a number from -1 to 1."""


class Task(ABC):
    """A task: how a row becomes a source text and an answer, and how answers are judged.

    Attributes:
        answers: the answer texts of a closed task, in the order in which scores come; empty where any text may be one.
        numbers: what the answers stand for, for regression; None otherwise.
    """

    METRICS: ClassVar[dict[str, Metric]]

    def __init__(self, name: str, settings: TaskSettings) -> None:
        self.name, self.settings = name, settings
        self.text_columns = text.columns(settings.text)
        unknown = [metric for metric in settings.metrics if metric not in self.METRICS]
        if unknown:
            known = ", ".join(self.METRICS)
            raise HyperFormerError(f"task {name!r}: unknown metric {unknown[0]!r}; a {settings.kind} task has {known}")
        self.answers, self.numbers = self._answers()

    def _answers(self) -> tuple[list[str], list[float] | None]:
        return [], None

    @abstractmethod
    def answer_text(self, row: Mapping[str, Any]) -> str:
        """What the model should say of the row.

        Raises:
            HyperFormerError: the label is not one of the task's.
        """

    @abstractmethod
    def truth(self, row: Mapping[str, Any]) -> Any:
        """What the row's label is to the metrics."""

    @abstractmethod
    def prediction(self, answer: Answer) -> Any:
        """What an answer is to the metrics."""

    def example(self, row: Mapping[str, Any]) -> Example:
        """The row as text."""
        answer = self.answer_text(row)
        label = self.answers.index(answer) if self.answers else None
        return Example(self.name, text.render(self.settings.text, row), answer, label)

    def metrics(self, truths: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        """The task's metrics, in percent."""
        return {
            name: 100.0 * self.METRICS[name](truths, predictions, len(self.answers)) for name in self.settings.metrics
        }
