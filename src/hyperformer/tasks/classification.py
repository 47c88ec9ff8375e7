"""Classification tasks: a fixed list of labels, each with an answer text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer
from hyperformer.settings import TaskSettings
from hyperformer.tasks.base import Metric, Task, register_task


def _accuracy(truths: Sequence[int], predictions: Sequence[int], labels: int) -> float:
    from sklearn.metrics import accuracy_score  # takes more than a second

    return float(accuracy_score(truths, predictions))


def _f1(truths: Sequence[int], predictions: Sequence[int], labels: int) -> float:
    """Return F1 of the second of two labels (as in GLUE), or macro F1 for more labels.

    Macro F1 is the mean F1 of the labels that occur in truths or predictions, the default of scikit-learn's `f1_score`.
    A prediction of `OUTSIDE` counts as a missed row of its true label, and is no label itself.
    """
    from sklearn.metrics import f1_score

    averaged = [1] if labels == 2 else sorted({*truths, *predictions} - {OUTSIDE})
    return float(f1_score(truths, predictions, labels=averaged, average="macro", zero_division=0.0))


def _matthews(truths: Sequence[int], predictions: Sequence[int], labels: int) -> float:
    """Return the Matthews correlation, or 0 if truths or predictions contain a single label."""
    from sklearn.metrics import matthews_corrcoef

    if len(set(truths)) == 1 or len(set(predictions)) == 1:
        return 0.0
    return float(matthews_corrcoef(truths, predictions))


OUTSIDE = -1
"""Index of a generated answer that is none of the labels; it always counts as wrong."""


class ClassificationSettings(TaskSettings):
    """Settings of a classification task."""

    labels: dict[str | int | bool, Annotated[str, Field(min_length=1)]]
    """Maps each value of the label column to its answer text."""

    @model_validator(mode="after")
    def _check_labels(self) -> ClassificationSettings:
        if len(self.labels) < 2:
            raise ValueError("a classification task must have at least two `labels`")
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two labels have the same answer text; use a different text for each")
        if len({str(value) for value in self.labels}) < len(self.labels):
            raise ValueError("two labels have the same column value; use a different value for each")
        return self


class Classification(Task):
    """Classification task; the metrics compare the indices of labels in the setting `labels`."""

    settings: ClassificationSettings
    METRICS: ClassVar[dict[str, Metric]] = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews}

    def _answers(self) -> tuple[list[str], list[float] | None]:
        labels = self.settings.labels
        self._index = {str(value): i for i, value in enumerate(labels)}
        return list(labels.values()), None

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the answer text of the row's label."""
        return self.answers[self.read_label(row)]

    def read_label(self, row: Mapping[str, Any]) -> int:
        """Return the index of the row's label."""
        value = row.get(self.settings.label_column)
        if str(value) not in self._index:
            known = ", ".join(self._index)
            column = self.settings.label_column
            raise HyperFormerError(f"the label in column {column!r} is {value!r}, expected one of {known}")
        return self._index[str(value)]

    def to_prediction(self, answer: Answer) -> int:
        """Return the index of the answer's label, or `OUTSIDE`."""
        return self.answers.index(answer.label) if answer.label in self.answers else OUTSIDE


register_task("classification", ClassificationSettings, Classification)
