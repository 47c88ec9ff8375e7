"""Classification tasks: a fixed list of labels, each with an answer text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from hyperformer.core.errors import suggest_name
from hyperformer.core.types import Answer
from hyperformer.core.values import to_text
from hyperformer.settings import TaskSettings
from hyperformer.tasks.base import LabelError, Metric, Task, register_task


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


Label: TypeAlias = str | int | bool | float
"""A value of the label column as YAML reads it."""


def _parse_labels(value: Any) -> Any:
    """Return a list of labels as a map in which each label is its own answer text."""
    if not isinstance(value, list | tuple):
        return value
    if any(not isinstance(label, Label) for label in value):
        raise ValueError(f"expected a list of labels, or a map of labels to answer texts, got {value!r}")
    labels = {label: to_text(label, "labels") for label in value}
    if len(labels) < len(value):
        raise ValueError("two labels are equal; list each label once")
    return labels


class ClassificationSettings(TaskSettings):
    """Settings of a classification task."""

    labels: Annotated[dict[Label, Annotated[str, Field(min_length=1)]], BeforeValidator(_parse_labels)]
    """Maps each value of the label column to its answer text. A list stands for labels that are their own texts."""
    merge_labels: dict[str, Annotated[list[Label], Field(min_length=1)]] = Field(default={})
    """Maps an answer text to the values of the label column that have this answer instead of their own."""

    @model_validator(mode="after")
    def _check_labels(self) -> ClassificationSettings:
        if len(self.labels) < 2:
            raise ValueError("a classification task must have at least two `labels`")
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two labels have the same answer text; give them different texts, or use `merge_labels`")
        texts = [to_text(value, "labels") for value in self.labels]
        if len(set(texts)) < len(texts):
            raise ValueError("two labels have the same column value; use a different value for each")
        merged = [to_text(value, "merge_labels") for values in self.merge_labels.values() for value in values]
        for text in merged:
            if text not in texts:
                raise ValueError(f"`merge_labels` has {text!r}, which `labels` has not; {suggest_name(text, texts)}")
            if merged.count(text) > 1:
                raise ValueError(f"`merge_labels` has {text!r} twice; merge each label once")
        if len(set(self.answer_texts().values())) < 2:
            raise ValueError("`merge_labels` leaves a single answer; expected at least two")
        return self

    def answer_texts(self) -> dict[Label, str]:
        """Return the answer text of each value of the label column, after merging."""
        answers = {to_text(value, ""): text for text, values in self.merge_labels.items() for value in values}
        return {value: answers.get(to_text(value, ""), text) for value, text in self.labels.items()}


BOOLEAN_TEXTS = {True: ("true", "True", "TRUE"), False: ("false", "False", "FALSE")}
"""Texts that JSON, data frames and spreadsheets write for a boolean."""
YAML_BOOLEANS = ("y", "yes", "on", "true", "n", "no", "off", "false")
"""Words that YAML reads as booleans if they are not quoted."""
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
"""The form of a number; other texts, such as 007, do not match a label that is a number."""


class Classification(Task):
    """Classification task; the metrics compare the indices of answers.

    A label that is a string matches the same text, a label that is a number matches any form of the number, such as 1
    and 1.0, and a boolean matches the words for it that files have.
    """

    settings: ClassificationSettings
    METRICS: ClassVar[dict[str, Metric]] = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews}

    def _answers(self) -> tuple[list[str], list[float] | None]:
        texts = self.settings.answer_texts()
        answers = list(dict.fromkeys(texts.values()))
        self._index: dict[str, int] = {}
        self._numbers: dict[float, int] = {}
        for value, answer in texts.items():
            index = answers.index(answer)
            spellings = BOOLEAN_TEXTS[value] if isinstance(value, bool) else (to_text(value, "labels"),)
            self._index |= dict.fromkeys(spellings, index)
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._numbers[float(value)] = index
        return answers, None

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the answer text of the row's label."""
        return self.answers[self.read_label(row)]

    def read_label(self, row: Mapping[str, Any]) -> int:
        """Return the index of the answer to the row's label.

        Raises:
            LabelError: The task does not have the label.
            HyperFormerError: The label is null or has no text.
        """
        column = self.settings.label_column
        label = to_text(row.get(column), column)
        index = self._index.get(label)
        if index is None and self._numbers and NUMBER.fullmatch(label):
            index = self._numbers.get(float(label))
        if index is None:
            known = ", ".join(to_text(value, column) for value in self.settings.labels)
            raise LabelError(column, label, known, self._advise(label))
        return index

    def _advise(self, label: str) -> str:
        """Return the advice for an unknown label."""
        is_true = label.lower() in YAML_BOOLEANS[:4]
        if label.lower() in YAML_BOOLEANS and any(value is is_true for value in self.settings.labels):
            return f'YAML reads the label {label} as {is_true} if it is not quoted; write "{label}" in `labels`'
        if re.fullmatch(r"0\d+", label) and self._numbers:
            return f'YAML reads the label {label} as a number if it is not quoted; write "{label}" in `labels`'
        if label == "":
            return "Fill the empty cells, or remove the rows"
        return "Add each label to `labels`, or fix the rows"

    def to_prediction(self, answer: Answer) -> int:
        """Return the index of the answer's label, or `OUTSIDE`."""
        return self.answers.index(answer.label) if answer.label in self.answers else OUTSIDE


register_task("classification", ClassificationSettings, Classification)
