"""Classification tasks: a fixed list of labels, each with an answer text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from hyperformer.core.errors import HyperFormerError, suggest_name
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


BOOLEAN_TEXTS = {"true": ("True", "TRUE"), "false": ("False", "FALSE")}
"""Texts that data frames and spreadsheets write for a boolean."""
YAML_BOOLEANS = {**dict.fromkeys(("y", "yes", "on"), "true"), **dict.fromkeys(("n", "no", "off"), "false")}
"""Words that YAML reads as booleans if they are not quoted, and the texts of the booleans."""
YAML_NUMBER = re.compile(r"[-+]?\.?\d[\w:.+-]*")
"""The form of texts that YAML may read as numbers, such as 007, +1, 0x1F and 12:30."""
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
"""The form of a number; other texts, such as 007, do not match a label that is a number."""


def _parse_label(label: Any) -> str:
    """Return the text of a label, which YAML may have read as a number or a boolean.

    Raises:
        ValueError: The label has no exact text.
    """
    try:
        return to_text(label, "labels")
    except HyperFormerError:
        raise ValueError(f"the label {label!r} has no exact text; quote it") from None


def _parse_labels(value: Any) -> Any:
    """Return labels as a map of texts; in a list, each label is its own answer text."""
    if not isinstance(value, Mapping | list | tuple):
        return value
    texts = [_parse_label(label) for label in value]
    if len(set(texts)) < len(texts):
        raise ValueError("two labels are equal; list each label once, and quote labels that YAML reads as numbers")
    return dict(zip(texts, value.values() if isinstance(value, Mapping) else texts, strict=True))


Label = Annotated[str, BeforeValidator(_parse_label)]


class ClassificationSettings(TaskSettings):
    """Settings of a classification task."""

    labels: Annotated[dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(_parse_labels)]
    """Maps each value of the label column to its answer text. A list stands for labels that are their own texts."""
    merge_labels: dict[str, Annotated[list[Label], Field(min_length=1)]] = Field(default={})
    """Maps an answer text to the values of the label column that have this answer instead of their own."""
    has_classes = True

    @model_validator(mode="after")
    def _check_labels(self) -> ClassificationSettings:
        if len(self.labels) < 2:
            raise ValueError("a classification task must have at least two `labels`")
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two labels have the same answer text; give them different texts, or use `merge_labels`")
        numbers = [Decimal(label) for label in self.labels if NUMBER.fullmatch(label)]
        if len(set(numbers)) < len(numbers):
            raise ValueError("two labels are the same number; keep one of them")
        merged = [label for labels in self.merge_labels.values() for label in labels]
        for label in merged:
            if label not in self.labels:
                hint = suggest_name(label, self.labels)
                raise ValueError(
                    f"`merge_labels` has {label!r}, which `labels` has not; {hint}. `labels` has all labels"
                )
            if merged.count(label) > 1:
                raise ValueError(f"`merge_labels` has {label!r} twice; merge each label once")
        if len(set(self.answer_texts().values())) < 2:
            raise ValueError("`merge_labels` leaves a single answer; expected at least two")
        return self

    def answer_texts(self) -> dict[str, str]:
        """Return the answer text of each label, after merging."""
        answers = {label: text for text, labels in self.merge_labels.items() for label in labels}
        return {label: answers.get(label, text) for label, text in self.labels.items()}


def _simplify(label: str) -> str:
    """Return a label without differences of case, spaces, invisible characters and Unicode normalization."""
    visible = (char for char in unicodedata.normalize("NFKC", label) if char.isprintable() and not char.isspace())
    return "".join(visible).casefold()


class Classification(Task):
    """Classification task; the metrics compare the indices of answers.

    A label matches the same text. If no label does, a number matches any form of the number, such as 1 and 1.0, and
    true and false match the words that files have for them.
    """

    settings: ClassificationSettings
    METRICS: ClassVar[dict[str, Metric]] = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews}

    def _answers(self) -> tuple[list[str], list[float] | None]:
        texts = self.settings.answer_texts()
        answers = list(dict.fromkeys(texts.values()))
        self._index: dict[str, int] = {}
        self._numbers: dict[Decimal, int] = {}
        for label, answer in texts.items():
            index = self._index[label] = answers.index(answer)
            if NUMBER.fullmatch(label):
                self._numbers[Decimal(label)] = index
        for label, spellings in BOOLEAN_TEXTS.items():
            if label in texts:
                self._index = dict.fromkeys(spellings, self._index[label]) | self._index
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
            index = self._numbers.get(Decimal(label))
        if index is None:
            known = ", ".join(self.settings.labels)
            raise LabelError(column, label, known, self._advise(label))
        return index

    def _advise(self, label: str) -> str:
        """Return the advice for an unknown label."""
        boolean = YAML_BOOLEANS.get(label.lower())
        if boolean in self.settings.labels:
            kind = str(boolean).capitalize()
        elif YAML_NUMBER.fullmatch(label) and not NUMBER.fullmatch(label) and self._numbers:
            kind = "a number"
        else:
            kind = ""
        if kind:
            return f'YAML reads the label {label} as {kind} if it is not quoted; write "{label}" in `labels`'
        if label == "":
            return "Fill the empty labels, or remove the rows; for null, set `missing: drop`"
        similar = [text for text in self.settings.labels if _simplify(text) == _simplify(label)]
        if similar:
            return (
                f"{label!r} differs from {similar[0]!r} only in case, spaces or the encoding of characters: fix the "
                "rows, or add it to `labels` and `merge_labels`"
            )
        return "Add each label to `labels`, in quotes, or fix the rows"

    def to_prediction(self, answer: Answer) -> int:
        """Return the index of the answer's label, or `OUTSIDE`."""
        return self.answers.index(answer.label) if answer.label in self.answers else OUTSIDE

    def measure_ranking(self, truths: Sequence[int], answers: Sequence[Answer]) -> dict[str, float]:
        """Return `auc`, the area under the ROC curve, for two labels and a metric that depends on a threshold.

        It shows whether a task with a Matthews correlation or an F1 near 0 ranks its rows well: 50 is chance.
        """
        from sklearn.metrics import roc_auc_score

        if len(self.answers) != 2 or not {"f1", "matthews"} & {*self.settings.metrics} or len(set(truths)) < 2:
            return {}
        scores = [answer.probabilities.get(self.answers[1]) for answer in answers]
        return {} if None in scores else {"auc": 100.0 * float(roc_auc_score(truths, scores))}


register_task("classification", ClassificationSettings, Classification)
