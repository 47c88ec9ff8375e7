"""Regression tasks, whose answers are the numbers of a grid, as in T5.

The prediction is the expected value of the numbers or, if the backbone generates the answer, the generated number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import FiniteFloat, model_validator

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer
from hyperformer.core.values import to_text
from hyperformer.settings import TaskSettings
from hyperformer.tasks.base import Metric, Task, register_task


def _correlation(name: str) -> Metric:
    def metric(truths: Sequence[float], predictions: Sequence[float], labels: int) -> float:
        """Return the correlation, or 0 if truths or predictions are constant."""
        if np.ptp(truths) == 0 or np.ptp(predictions) == 0:
            return 0.0
        from scipy import stats  # takes half a second

        return float(getattr(stats, name)(truths, predictions).statistic)

    return metric


NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
"""The form of a number in the label column."""
MAX_ANSWERS = 1000
"""Maximum number of steps between the minimum and the maximum."""


class RegressionSettings(TaskSettings):
    """Settings of a regression task, whose answers are `minimum`, `minimum + step`, … up to `maximum`."""

    minimum: FiniteFloat
    """The smallest answer."""
    maximum: FiniteFloat
    """Upper limit of the answers."""
    step: FiniteFloat
    """Distance between adjacent answers."""

    @model_validator(mode="after")
    def _check_grid(self) -> RegressionSettings:
        if self.step <= 0 or self.maximum <= self.minimum:
            raise ValueError("a regression task must have step > 0 and maximum > minimum")
        if self.maximum - self.minimum < self.step:
            raise ValueError("a regression task must have at least two answers; use a smaller step")
        if (self.maximum - self.minimum) / self.step > MAX_ANSWERS:
            raise ValueError(f"a regression task must have at most {MAX_ANSWERS} steps in its range; use a larger step")
        return self


class Regression(Task):
    """Regression task; a row's answer is the number on the task's grid that is nearest to the row's label.

    The grid has the numbers `minimum`, `minimum + step`, … up to `maximum`.
    """

    settings: RegressionSettings
    METRICS: ClassVar[dict[str, Metric]] = {
        "pearson": _correlation("pearsonr"),
        "spearman": _correlation("spearmanr"),
    }

    def _answers(self) -> tuple[list[str], list[float] | None]:
        low, high, step = self.settings.minimum, self.settings.maximum, self.settings.step
        pairs = text.number_grid(low, high, step)
        return [answer for answer, _ in pairs], [number for _, number in pairs]

    def read_label(self, row: Mapping[str, Any]) -> float:
        """Return the number in the row's label column."""
        value, column = row.get(self.settings.label_column), self.settings.label_column
        low, high = self.settings.minimum, self.settings.maximum
        label = "" if value is None else to_text(value, column)
        number = float(label) if NUMBER.fullmatch(label) else math.nan
        if not low <= number <= high:
            comma = ", with a decimal point and no other separator" if "," in label else ""
            raise HyperFormerError(
                f"the label in column {column!r} is {value!r}, expected a number from {low} to {high}{comma}. Fix the "
                "row, or change `minimum` and `maximum`"
            )
        return number

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return, as text, the number of the grid that is nearest to the number in the row's label column."""
        assert self.numbers is not None
        return self.answers[text.nearest_index(self.numbers, self.read_label(row))]

    def to_prediction(self, answer: Answer) -> float:
        """Return the number of the answer, or NaN for a generated answer that is not a number of the grid."""
        return math.nan if answer.value is None else answer.value

    def compute_metrics(self, truths: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
        """Return the metrics in percent; a NaN prediction counts as the grid number farthest from the true number."""
        assert self.numbers is not None
        ends = self.numbers[0], self.numbers[-1]
        numbers = [
            max(ends, key=lambda end: abs(end - truth)) if math.isnan(number) else number
            for truth, number in zip(truths, predictions, strict=True)
        ]
        return super().compute_metrics(truths, numbers)


register_task("regression", RegressionSettings, Regression)
