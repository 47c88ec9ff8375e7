"""Statistics of a task's test predictions (confusions, calibration, errors) and of task embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils.extmath import svd_flip

BINS = 10
"""Number of probability bins of equal width, for the calibration error."""
MAX_MATRIX_LABELS = 12
"""Maximum number of labels of a task whose confusion matrix is shown."""
NO_LABEL = "not a label"
"""Name of the column for predictions that are not labels of the task."""
PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles of the predicted values of a regression task."""


@dataclass(frozen=True)
class Confusion:
    """Wrong predictions of rows that have the same true label."""

    truth: str
    answer: str
    rows: int
    total: int
    """Number of rows that have the true label."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """Predictions of a classification task by true label."""

    labels: tuple[str, ...]
    answers: tuple[str, ...]
    """The labels, and `NO_LABEL` if there are such predictions."""
    counts: NDArray[np.int64]
    """Number of rows by true label and prediction, [labels, answers]."""
    shares: NDArray[np.float64]
    """Share of each count in its row, from 0 to 1, [labels, answers]."""
    confusions: tuple[Confusion, ...]
    """Confusions in the order of their number of rows, most frequent first."""

    @property
    def is_small(self) -> bool:
        """True if the matrix is small enough to be shown."""
        return len(self.labels) <= MAX_MATRIX_LABELS


def build_confusion_matrix(
    truths: Sequence[str], answers: Sequence[str], labels: Sequence[str], shown: Sequence[str] | None = None
) -> ConfusionMatrix:
    """Count the predictions of a classification task by true label.

    Args:
        truths: The true label of each row.
        answers: The prediction of each row; any text.
        labels: The labels of the task, in the order of the matrix.
        shown: The names of the labels in the matrix; None: the labels.
    """
    shown = labels if shown is None else shown
    indices = pd.Index(labels)
    codes = [indices.get_indexer(pd.Index(texts, dtype=indices.dtype)) for texts in (truths, answers)]  # -1: no label
    counts = confusion_matrix(*codes, labels=[*range(len(labels)), -1])[:-1]
    names = [*shown, *([NO_LABEL] if counts[:, -1].any() else [])]
    counts = counts[:, : len(names)]
    totals = counts.sum(axis=1)
    pairs = sorted(((i, j) for i, j in np.argwhere(counts).tolist() if i != j), key=lambda pair: (-counts[pair], pair))
    return ConfusionMatrix(
        tuple(shown),
        tuple(names),
        counts,
        counts / np.maximum(totals, 1)[:, None],
        tuple(Confusion(names[i], names[j], int(counts[i, j]), int(totals[i])) for i, j in pairs),
    )


@dataclass(frozen=True)
class Calibration:
    """Reliability of a task's probabilities, in bins of equal width; shares are from 0 to 1."""

    rows: NDArray[np.int64]
    """Number of rows in each bin, [bins]."""
    probability: NDArray[np.float64]
    """Mean probability in each bin, [bins]; 0 in an empty bin."""
    right: NDArray[np.float64]
    """Share of correct answers in each bin, [bins]; 0 in an empty bin."""
    mean_probability: float
    """Mean probability of all rows."""
    accuracy: float
    """Share of correct answers of all rows."""
    error: float
    """Expected calibration error."""
    chance: float
    """Average expected calibration error of a perfectly calibrated model on the same number of rows."""


def measure_calibration(probabilities: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibration:
    """Measure the calibration of probabilities as in Guo et al. 2017, section 2.

    A probability on the edge of two bins belongs to the lower bin. `chance` estimates the error of each bin as
    sqrt(2/pi) times the standard deviation of its share of correct answers; this product is the mean absolute deviation
    of a normal variable.

    Args:
        probabilities: The probability of each answer, [rows].
        right: Whether each answer is correct, [rows].
    """
    bins = np.clip(np.ceil(probabilities * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    nonzero_rows = np.maximum(rows, 1)
    mean = np.bincount(bins, weights=probabilities, minlength=BINS) / nonzero_rows
    share = np.bincount(bins, weights=right.astype(np.float64), minlength=BINS) / nonzero_rows
    variance = np.bincount(bins, weights=probabilities * (1.0 - probabilities), minlength=BINS)
    return Calibration(
        rows,
        mean,
        share,
        mean_probability=float(probabilities.mean()),
        accuracy=float(right.mean()),
        error=float(np.sum(rows * np.abs(share - mean)) / len(bins)),
        chance=float(np.sqrt(2.0 / np.pi) * np.sum(np.sqrt(variance)) / len(bins)),
    )


@dataclass(frozen=True)
class ValueGroup:
    """Predicted values of the rows of a regression task that have the same true value."""

    truth: float
    rows: int
    mean: float
    percentiles: tuple[float, ...]
    """The `PERCENTILES` of the predicted values."""


def group_by_truth(table: pd.DataFrame, answers: Sequence[str], numbers: Sequence[float]) -> list[ValueGroup]:
    """Summarize the predicted values of a regression task for each true value, in ascending order.

    Args:
        table: Predictions, as `Run.read_predictions` returns them; rows without a predicted value are omitted.
        answers: The answers of the task, as texts.
        numbers: The numeric value of each answer.
    """
    truth = table["truth"].map(dict(zip(answers, numbers, strict=True)))
    return [
        ValueGroup(number, len(values), float(values.mean()), tuple(map(float, np.percentile(values, PERCENTILES))))
        for number, values in table["value"].dropna().groupby(truth)
    ]


def select_worst(table: pd.DataFrame, numbers: dict[str, float] | None, limit: int) -> pd.DataFrame:
    """Select the worst predictions, worst first.

    For a regression task, the worst predictions have the largest errors; a prediction that is not a number is worse
    than any number. For other tasks, the worst are the wrong predictions with the highest probabilities, or the first
    wrong predictions if there are no probabilities.

    Args:
        table: Predictions, as `Run.read_predictions` returns them.
        numbers: The numeric value of each answer of a regression task; None for other tasks.
        limit: The maximum number of rows to select.
    """
    if numbers is not None:
        error = (table["truth"].map(numbers) - table["value"]).abs().fillna(np.inf)
        return table.loc[error.sort_values(ascending=False, kind="stable").index[:limit]]
    wrong = table[table["truth"] != table["answer"]]
    if "probability" in wrong:
        wrong = wrong.sort_values("probability", ascending=False, kind="stable")
    return wrong.head(limit)


@dataclass(frozen=True)
class Similarity:
    """Similarity of task embeddings."""

    names: tuple[str, ...]
    size: int
    """Length of an embedding."""
    cosines: NDArray[np.float64]
    """Cosine similarity of each pair, [tasks, tasks]."""
    most: tuple[float, str, str]
    """The highest cosine of two tasks, and their names."""
    least: tuple[float, str, str]
    """The lowest cosine of two tasks, and their names."""
    chance: float
    """Limit of the absolute cosine of 95% of random pairs of vectors."""
    points: NDArray[np.float64]
    """First two principal components of each embedding, [tasks, 2]."""
    variance: NDArray[np.float64]
    """Share of the variance that each component explains, from 0 to 1, [2]."""


def project_to_principal_components(embeddings: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project rows [n, e], n > 1, onto their first two principal components.

    The sign of each component is chosen so that its coordinate with the largest absolute value is positive.

    Returns:
        The points, [n, 2], and the share of the variance that each component explains, [2].
    """
    u, s, v = np.linalg.svd(embeddings - embeddings.mean(axis=0), full_matrices=False)
    u, _ = svd_flip(u, v)
    count = min(2, len(s))
    points, shares = np.zeros((len(embeddings), 2)), np.zeros(2)
    points[:, :count] = (u * s)[:, :count]
    shares[:count] = (s**2 / max((s**2).sum(), 1e-12))[:count]
    return points, shares


def compare_embeddings(names: Sequence[str], embeddings: NDArray[np.float64]) -> Similarity:
    """Compare the embeddings [n, e] of n > 1 tasks."""
    cosines = cosine_similarity(embeddings)
    pairs = [(float(cosines[i, j]), names[j], names[i]) for i in range(len(names)) for j in range(i)]
    points, variance = project_to_principal_components(embeddings)
    size = embeddings.shape[1]
    return Similarity(tuple(names), size, cosines, max(pairs), min(pairs), 1.96 / size**0.5, points, variance)
