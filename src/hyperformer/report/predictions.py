"""Statistics of a task's test predictions: confusions, calibration, errors, and similarity of task embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BINS = 10
"""Number of probability bins of equal width, for the calibration error."""


def read_predictions(folder: Path, task: str) -> pd.DataFrame:
    """Read the test predictions of a task; texts such as `NA` and empty texts stay strings."""
    table = pd.read_csv(folder / task / "test.csv", dtype=str, keep_default_na=False)
    for column in {"probability", "value"} & set(table.columns):
        table[column] = pd.to_numeric(table[column])
    return table


def confusion_matrix(truths: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """Count rows by true label and answer, [labels, labels + 1]; the last column is for answers that are not labels."""
    indices = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for truth, answer in zip(truths, answers, strict=True):
        counts[indices[truth], indices.get(answer, len(labels))] += 1
    return counts


@dataclass(frozen=True)
class Calibration:
    """Reliability of a task's probabilities, in bins of equal width; shares are from 0 to 1."""

    rows: NDArray[np.int64]
    """Number of rows in each bin, [bins]."""
    probability: NDArray[np.float64]
    """Mean probability in each bin, [bins]; 0 in an empty bin."""
    right: NDArray[np.float64]
    """Share of correct answers in each bin, [bins]; 0 in an empty bin."""
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
    error = float(np.sum(rows * np.abs(share - mean)) / len(bins))
    chance = float(np.sqrt(2.0 / np.pi) * np.sum(np.sqrt(variance)) / len(bins))
    return Calibration(rows, mean, share, error, chance)


def summarize_by_truth(table: pd.DataFrame, answers: Sequence[str], numbers: Sequence[float]) -> pd.DataFrame:
    """Summarize the predicted values of a regression task for each true value.

    Args:
        table: Predictions, as `read_predictions` returns them; rows without a predicted value are omitted.
        answers: The answers of the task, as texts.
        numbers: The numeric value of each answer.

    Returns:
        The columns truth, rows, mean, and the percentiles p5, p25, p50, p75 and p95.
    """
    truth = table["truth"].map(dict(zip(answers, numbers, strict=True)))
    lines = []
    for number, values in table["value"].dropna().groupby(truth):
        percentiles = np.percentile(values, [5, 25, 50, 75, 95])
        lines.append((number, len(values), values.mean(), *percentiles))
    return pd.DataFrame(lines, columns=["truth", "rows", "mean", "p5", "p25", "p50", "p75", "p95"])


def select_worst(table: pd.DataFrame, numbers: dict[str, float] | None, limit: int) -> pd.DataFrame:
    """Select the worst predictions, worst first.

    For a regression task, the worst predictions have the largest errors; a prediction that is not a number is worse
    than any number. For other tasks, the worst are the wrong predictions with the highest probabilities, or the first
    wrong predictions if there are no probabilities.

    Args:
        table: Predictions, as `read_predictions` returns them.
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


def cosine_similarity(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of rows of an array [n, e], as an array [n, n]."""
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    similarity: NDArray[np.float64] = unit @ unit.T
    return similarity


def project_to_principal_components(embeddings: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project rows [n, e], n > 1, onto their first two principal components.

    The sign of each component is chosen so that its coordinate with the largest absolute value is positive.

    Returns:
        The points, [n, 2], and the share of the variance that each component explains, [2].
    """
    centred = embeddings - embeddings.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(centred), 2))
    points[:, : min(2, len(s))] = (u * s)[:, :2]
    points *= np.where(np.take_along_axis(points, np.abs(points).argmax(0)[None], 0)[0] < 0, -1.0, 1.0)
    shares = np.zeros(2)
    shares[: min(2, len(s))] = (s**2 / max((s**2).sum(), 1e-12))[:2]
    return points, shares
