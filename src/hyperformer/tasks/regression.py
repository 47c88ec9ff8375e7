"""Regression as T5 does it: answers are the numbers of a grid; the prediction is the number that they expect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from hyperformer import text
from hyperformer.tasks.base import Metric, Task
from hyperformer.types import Answer, HyperFormerError


def _correlation(kind: Any) -> Metric:
    def metric(truths: Sequence[float], predictions: Sequence[float], labels: int) -> float:
        """0 where either side is constant: then nothing is told apart."""
        if np.ptp(truths) == 0 or np.ptp(predictions) == 0:
            return 0.0
        return float(kind(truths, predictions).statistic)

    return metric


class Regression(Task):
    """Numbers from `minimum` to `maximum`; a row's answer is the grid's nearest."""

    METRICS: ClassVar[dict[str, Metric]] = {
        "pearson": _correlation(stats.pearsonr),
        "spearman": _correlation(stats.spearmanr),
    }

    def _answers(self) -> tuple[list[str], list[float] | None]:
        low, high, step = self.settings.minimum, self.settings.maximum, self.settings.step
        assert low is not None and high is not None and step is not None  # TaskSettings sees to it
        pairs = text.grid(low, high, step)
        return [words for words, _ in pairs], [number for _, number in pairs]

    def truth(self, row: Mapping[str, Any]) -> float:
        value, column = row.get(self.settings.label_column), self.settings.label_column
        low, high = self.settings.minimum, self.settings.maximum
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:  # type: ignore[operator]
            raise HyperFormerError(
                f"the label in column {column!r} is {value!r}, expected a number from {low} to {high}"
            )
        return number

    def answer_text(self, row: Mapping[str, Any]) -> str:
        assert self.numbers is not None
        return self.answers[text.nearest(self.numbers, self.truth(row))]

    def prediction(self, answer: Answer) -> float:
        return math.nan if answer.value is None else answer.value

    def metrics(self, truths: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
        """The task's metrics, in percent; an answer that is no number of the grid counts as the farthest one."""
        assert self.numbers is not None
        ends = self.numbers[0], self.numbers[-1]
        judged = [
            max(ends, key=lambda end: abs(end - truth)) if math.isnan(number) else number
            for truth, number in zip(truths, predictions, strict=True)
        ]
        return super().metrics(truths, judged)
