"""What the predictions of a task's test split say: where it is wrong, and whether its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BINS = 10


def read(folder: Path, task: str) -> pd.DataFrame:
    """The test predictions of a task as evaluation wrote them; texts as they are, also `NA` and none."""
    table = pd.read_csv(folder / task / "test.csv", dtype=str, keep_default_na=False)
    for column in {"probability", "value"} & set(table.columns):
        table[column] = pd.to_numeric(table[column])
    return table


def confusion(truths: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """How many rows of each truth got each answer, [labels, labels + 1]; last come answers that are no label."""
    places = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for truth, answer in zip(truths, answers, strict=True):
        counts[places[truth], places.get(answer, len(labels))] += 1
    return counts


@dataclass(frozen=True)
class Calibration:
    """Bins of equal width in probability, and their gaps; shares are from 0 to 1.

    `rows`, `probability` (mean) and `right` (share of right answers) are [bins]; of an empty bin the last two are 0.
    `error` is the expected calibration error, and `chance` what it would be on average if every probability were true.
    """

    rows: NDArray[np.int64]
    probability: NDArray[np.float64]
    right: NDArray[np.float64]
    error: float
    chance: float


def calibration(probabilities: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibration:
    """The reliability of probabilities [rows]: expected calibration error as in Guo et al. 2017, section 2.

    A probability on the edge of two bins counts to the lower one. Of a bin, `chance` takes the mean distance of a
    normal variable from its mean, which is sqrt(2/pi) of its standard deviation.
    """
    bins = np.clip(np.ceil(probabilities * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    some = np.maximum(rows, 1)
    mean = np.bincount(bins, weights=probabilities, minlength=BINS) / some
    share = np.bincount(bins, weights=right.astype(np.float64), minlength=BINS) / some
    spread = np.bincount(bins, weights=probabilities * (1.0 - probabilities), minlength=BINS)
    error = float(np.sum(rows * np.abs(share - mean)) / len(bins))
    chance = float(np.sqrt(2.0 / np.pi) * np.sum(np.sqrt(spread)) / len(bins))
    return Calibration(rows, mean, share, error, chance)


def by_truth(table: pd.DataFrame, answers: Sequence[str], numbers: Sequence[float]) -> pd.DataFrame:
    """Of a regression task by true number: `rows`, and of the predicted numbers their mean and percentiles.

    Columns: truth, rows, mean, p5, p25, p50, p75, p95. Answers that are no number are left out.
    """
    truth = table["truth"].map(dict(zip(answers, numbers, strict=True)))
    lines = []
    for number, values in table["value"].dropna().groupby(truth):
        low, first, middle, third, high = np.percentile(values, [5, 25, 50, 75, 95])
        lines.append((number, len(values), values.mean(), low, first, middle, third, high))
    return pd.DataFrame(lines, columns=["truth", "rows", "mean", "p5", "p25", "p50", "p75", "p95"])


def worst(table: pd.DataFrame, numbers: dict[str, float] | None, most: int) -> pd.DataFrame:
    """The worst answers, worst first: the surest wrong ones, or those farthest off where answers are numbers."""
    if numbers is not None:
        gap = (table["truth"].map(numbers) - table["value"]).abs().fillna(np.inf)
        return table.loc[gap.sort_values(ascending=False, kind="stable").index[:most]]
    wrong = table[table["truth"] != table["answer"]]
    if "probability" in wrong:
        wrong = wrong.sort_values("probability", ascending=False, kind="stable")
    return wrong.head(most)


def cosines(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine similarity of each two rows, [n, n]."""
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    found: NDArray[np.float64] = unit @ unit.T
    return found


def principal(embeddings: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows [n, e], n > 1, on their first two principal components, [n, 2], and the share of variance of each, [2].

    Of either sign of a component the one is taken whose farthest row is positive.
    """
    centred = embeddings - embeddings.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(centred), 2))
    points[:, : min(2, len(s))] = (u * s)[:, :2]
    points *= np.where(np.take_along_axis(points, np.abs(points).argmax(0)[None], 0)[0] < 0, -1.0, 1.0)
    shares = np.zeros(2)
    shares[: min(2, len(s))] = (s**2 / max((s**2).sum(), 1e-12))[:2]
    return points, shares
