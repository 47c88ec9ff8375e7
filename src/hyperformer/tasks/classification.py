"""Classification: one of a list of labels, each with an answer text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from hyperformer.tasks.base import Metric, Task
from hyperformer.types import Answer, HyperFormerError


def _accuracy(truths: Sequence[int], predictions: Sequence[int], labels: int) -> float:
    return float(accuracy_score(truths, predictions))


def _f1(truths: Sequence[int], predictions: Sequence[int], labels: int) -> float:
    """F1 of the second label between two (as GLUE has it), the mean over labels among more."""
    judged = [1] if labels == 2 else range(labels)
    return float(f1_score(truths, predictions, labels=judged, average="macro", zero_division=0.0))


def _matthews(truths: Sequence[int], predictions: Sequence[int], labels: int) -> float:
    """0 where either side has one label only: then nothing is told apart."""
    if len(set(truths)) == 1 or len(set(predictions)) == 1:
        return 0.0
    return float(matthews_corrcoef(truths, predictions))


OUTSIDE = -1  # what a generated answer that is no label counts as: always wrong


class Classification(Task):
    """Labels in the order of the configuration; metrics are given their indices."""

    METRICS: ClassVar[dict[str, Metric]] = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews}

    def _answers(self) -> tuple[list[str], list[float] | None]:
        labels = self.settings.labels or {}
        self._index = {str(value): i for i, value in enumerate(labels)}
        return list(labels.values()), None

    def answer_text(self, row: Mapping[str, Any]) -> str:
        return self.answers[self.truth(row)]

    def truth(self, row: Mapping[str, Any]) -> int:
        value = row.get(self.settings.label_column)
        if str(value) not in self._index:
            known = ", ".join(self._index)
            column = self.settings.label_column
            raise HyperFormerError(f"the label in column {column!r} is {value!r}, expected one of {known}")
        return self._index[str(value)]

    def prediction(self, answer: Answer) -> int:
        return self.answers.index(answer.label) if answer.label in self.answers else OUTSIDE
