"""The baselines of one task: a guess, and simple models on words, on overlap, and on frozen embeddings."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from hyperformer.baselines.features import Embed, Features, list_features
from hyperformer.core.errors import first_line
from hyperformer.core.types import SPLITS
from hyperformer.data.storage import Rows
from hyperformer.tasks import Task

Metrics = dict[str, float]
Scores = dict[str, Metrics]
"""Metrics by baseline, in percent."""
EVALUATED = SPLITS[1:]
"""The splits that baselines are evaluated on: validation and test."""
MAX_EMBEDDED_ROWS = 5_000
"""Maximum number of training rows that are embedded; embedding takes nearly all the time of the baselines."""
MAX_ITERATIONS = 200
"""Maximum number of iterations of a logistic regression."""
STRENGTHS = (100.0, 10.0, 1.0, 0.1, 0.01)
"""Strengths of L2 regularization, strongest first: `alpha` of a ridge regression, 1 / `C` of a logistic regression."""


def evaluate_baselines(
    task: Task, train: Rows, validation: Rows, test: Rows, embed: Embed
) -> tuple[dict[str, Scores], dict[str, str]]:
    """Evaluate simple baselines on `validation` and `test`: `majority`, `tfidf`, `overlap` and `frozen`.

    `majority` predicts the most frequent label or text, or the mean in a regression task. `tfidf` is logistic
    regression on TF-IDF of one or two words, or of one to three characters (see `is_written_without_spaces`). In a
    regression task it is ridge regression, and in a generative task the text of the nearest training row. `overlap`
    adds features of the overlap of two texts to `tfidf`; it exists for classification and regression tasks with two
    text columns. `frozen` fits the same models to embeddings of the frozen backbone. With two text columns, whose
    embeddings are u and v, the features are u, v, |u - v| and the elementwise product u · v (Conneau et al. 2017,
    section 3.1). Otherwise, the feature vector is the embedding of the joined texts. At most `MAX_EMBEDDED_ROWS` of the
    training rows are embedded, at equal distances.

    Every regression is fitted to `train` once for each of `STRENGTHS`. The one with the highest mean of the task's
    metrics on `validation` is evaluated; of equal ones, the one with the strongest regularization. The scores of
    regressions on `validation` are therefore optimistic; `majority` is not tuned.

    A baseline that has nothing to work with is left out, for example if all training rows have the same label or no
    text has a word.

    Args:
        task: the task.
        train: rows that the baselines are fitted to.
        validation: rows that the strength of the regularization is chosen on.
        test: rows that the baselines are evaluated on.
        embed: computes the backbone's embeddings of texts, [texts, d].

    Returns:
        split → baseline → metric → percent, and a note for each baseline that is left out or fitted to fewer rows.
    """
    splits = [train, validation, test]
    labels = [[task.read_label(row) for row in rows] for rows in splits]
    scores = evaluate_majority(task, *labels)
    notes: dict[str, str] = {}
    embedded = np.unique(np.linspace(0, len(train) - 1, min(len(train), MAX_EMBEDDED_ROWS)).astype(int)).tolist()
    if len(embedded) < len(train):
        notes["frozen"] = f"fitted to {len(embedded):,} of the {len(train):,} rows"
    for name, make_features in list_features(task, splits, embedded, embed).items():
        try:
            fitted = [labels[0][row] for row in embedded] if name == "frozen" else labels[0]
            if len(set(fitted)) == 1:
                raise ValueError("all training rows have the same answer")
            features = make_features()
            _check_spread(features[0])
            with threadpool_limits(1):  # the result must not depend on the number of threads
                predictions = _predict(task, features, [fitted, *labels[1:]])
            for split, truths, answers in zip(EVALUATED, labels[1:], predictions, strict=True):
                scores[split][name] = _score(task, truths, answers)
        except ValueError as error:  # of this module, or of scikit-learn
            notes[name] = f"left out, because {first_line(error).rstrip('.')}"
    return scores, notes


def evaluate_majority(
    task: Task, train: Iterable[Any], validation: Sequence[Any], test: Sequence[Any]
) -> dict[str, Scores]:
    """Evaluate the baseline `majority` on labels; returns split → `majority` → metric → percent."""
    common = _find_common(task, train)
    return {
        split: {"majority": _score(task, labels, [common] * len(labels))}
        for split, labels in zip(EVALUATED, (validation, test), strict=True)
    }


def _find_common(task: Task, labels: Iterable[Any]) -> Any:
    """Return the most frequent label, the lowest of equally frequent ones, or the mean in a regression task."""
    if task.numbers is not None:
        return float(np.mean(np.fromiter(labels, dtype=np.float64)))
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def _score(task: Task, truths: Sequence[Any], predictions: Sequence[Any]) -> Metrics:
    metrics = task.compute_metrics(truths, predictions)
    return {**metrics, "mean": float(np.mean(list(metrics.values())))}


def _check_spread(train: Any) -> None:
    """Raise ValueError if all rows of train have the same features."""
    if abs(train.max(axis=0) - train.min(axis=0)).sum() == 0:
        raise ValueError("all training rows have the same features")


def _predict(task: Task, features: Features, labels: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Fit models to train, choose one on validation, and return its predictions for validation and test."""
    train, validation, test = features
    if not task.answers:
        nearest = NearestNeighbors(n_neighbors=1).fit(train)
        neighbors = [nearest.kneighbors(rows, return_distance=False)[:, 0] for rows in (validation, test)]
        return [[labels[0][index] for index in indices] for indices in neighbors]
    fitted = []
    for strength in STRENGTHS:
        model = _fit(task, train, labels[0], strength)
        answers = model.predict(validation).tolist()
        fitted.append((_score(task, labels[1], answers)["mean"], answers, model))
    _, answers, best = max(fitted, key=itemgetter(0))  # the first, which is the strongest, of equal ones
    return [answers, best.predict(test).tolist()]


def _fit(task: Task, train: Any, labels: Sequence[Any], strength: float) -> Any:
    """Fit a ridge regression or a logistic regression to train."""
    if task.numbers is not None:
        return Ridge(alpha=strength).fit(train.astype(np.float64, copy=False), labels)  # float32 is too coarse
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of iterations is enough for a baseline
        return LogisticRegression(C=1.0 / strength, max_iter=MAX_ITERATIONS).fit(train, labels)
