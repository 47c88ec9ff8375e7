"""Metrics of answers, and baselines to compare a trained model with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.progress import track
from hyperformer.core.types import SPLITS, Answer, Split
from hyperformer.data.storage import Rows, Writer, read_rows
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

Answerer = Callable[[str, Sequence[Mapping[str, Any]]], list[Answer]]
Metrics = dict[str, float]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def compute_metrics(task: Task, rows: Rows, answers: Sequence[Answer]) -> Metrics:
    """Compute the task's metrics in percent, and their `mean`.

    `collapsed` is 1 if all rows got the same answer although their true answers differ, otherwise 0. If the answers of
    a classification or regression task were generated, `outside` is the number of generated texts that are none of the
    task's answers; the other metrics count them as wrong.
    """
    truths = [task.read_label(row) for row in rows]
    result = _add_mean(task.compute_metrics(truths, [task.to_prediction(answer) for answer in answers]))
    result["collapsed"] = float(_count_distinct(task, answers) == 1 < len(set(truths)))
    if task.answers and not any(answer.probabilities for answer in answers):
        result["outside"] = float(sum(answer.label not in task.answers for answer in answers))
    return result


def _count_distinct(task: Task, answers: Sequence[Answer]) -> int:
    """Count the different answers; those of a regression task are first rounded to the nearest number of the grid."""
    if task.numbers is None:
        return len({answer.label for answer in answers})
    return len({None if a.value is None else text.nearest_index(task.numbers, a.value) for a in answers})


def _add_mean(result: Metrics) -> Metrics:
    return {**result, "mean": float(np.mean(list(result.values())))}


def evaluate(answer: Answerer, task: Task, rows: Rows, split: Split = "test") -> tuple[Metrics, pd.DataFrame]:
    """Predict the answers of a task's rows, and compare them with the true answers.

    Args:
        answer: predicts the answers of rows, given the name of their task and the rows.
        task: the task.
        rows: rows with true answers.
        split: name of the split, for error messages.

    Returns:
        The metrics in percent, and a table with the source, true answer and predicted answer of each row. If the
        answers were scored, the table also has the probability of each answer. In a regression task, it also has the
        predicted number.

    Raises:
        HyperFormerError: the prediction for a row fails; the message names task, split and row.
    """
    try:
        answers = answer(task.name, list(rows))
    except RowError as error:
        raise HyperFormerError(f"task {task.name!r}, {split}, row {error.row + 1}: {error.reason}") from None
    table = pd.DataFrame(
        {
            "source": [text.join_source(text.render(task.settings.text, row)) for row in rows],
            "truth": [task.answer_text(row) for row in rows],
            "answer": [answer.label for answer in answers],
            "probability": [answer.probabilities.get(answer.label) for answer in answers],
        }
    ).dropna(axis="columns", how="all")  # generated answers have no probability
    if task.numbers is not None:
        table["value"] = [answer.value for answer in answers]
    return compute_metrics(task, rows, answers), table


def evaluate_all(
    answer: Answerer, tasks: Mapping[str, Task], rows: Path
) -> tuple[dict[str, dict[str, Metrics]], Writer]:
    """Evaluate every task on validation and test.

    Args:
        answer: predicts the answers of rows, given the name of their task and the rows.
        tasks: the tasks by name.
        rows: the folder of preprocessed rows.

    Returns:
        The metrics, as split → task → metric → value, where the additional task `mean` has the mean over all tasks; and
        a function that writes the predictions into a folder, as `<task>/<split>.csv`.
    """
    results: dict[str, dict[str, Metrics]] = {}
    tables: dict[str, pd.DataFrame] = {}
    for split in SPLITS[1:]:
        results[split] = {}
        for name, task in track(tasks.items(), f"evaluating on {split}", len(tasks)):
            split_rows = read_rows(rows, name, split)
            results[split][name], tables[f"{name}/{split}.csv"] = evaluate(answer, task, split_rows, split)
            log.info("%s, %s: %s", name, split, format_metrics(results[split][name]))
        results[split]["mean"] = {"mean": average_tasks(results[split])}

    def write(folder: Path) -> None:
        for name, table in tables.items():
            (folder / name).parent.mkdir(exist_ok=True)
            table.to_csv(folder / name, index=False, float_format="%.6f")

    return results, write


def format_metrics(result: Metrics) -> str:
    """Format a task's metrics as a line of text, with warnings about collapsed and invalid answers."""
    phrases = [f"{name} {value:.2f}" for name, value in result.items() if name not in ("collapsed", "outside")]
    if result.get("outside"):
        phrases.append(f"{result['outside']:.0f} generated answers that the task does not have")
    if result.get("collapsed"):
        phrases.append("WARNING: all rows got the same answer")
    return ", ".join(phrases)


def average_tasks(results: Mapping[str, Metrics]) -> float:
    """Return the mean over tasks of each task's mean metric, which selects the best checkpoint."""
    return float(np.mean([result["mean"] for result in results.values()]))


def standard_error(task: Task, result: Metrics, rows: int) -> float:
    """Return the standard error of a task's mean metric over `rows` rows, in percentage points.

    It is the normal approximation for a proportion, Pearson's correlation or Matthews' coefficient.
    """
    share = min(max(result["mean"] / 100.0, 0.0), 1.0)
    spread = 1.0 - share**2 if task.numbers is not None else (share * (1.0 - share)) ** 0.5
    if "matthews" in result:
        spread = (1.0 - share**2) ** 0.5
    return 100.0 * spread / rows**0.5


def evaluate_baselines(task: Task, train: Rows, test: Rows, embed: Embed, seed: int) -> dict[str, Metrics]:
    """Evaluate simple baselines on `test`: `majority`, `tfidf`, `overlap` and `frozen`.

    `majority` predicts the most frequent label or text, or the mean in a regression task. `tfidf` is logistic
    regression on TF-IDF of unigrams and bigrams; in a regression task it is ridge regression, and in a generative task
    the text of the nearest training row. `overlap` adds features of the overlap of two texts to `tfidf`; it exists for
    classification and regression tasks with two text columns. `frozen` fits the same models to embeddings of the frozen
    backbone. With two text columns, whose embeddings are u and v, the features are u, v, |u - v| and the elementwise
    product u · v (Conneau et al. 2017, section 3.1). Otherwise, the feature vector is the embedding of the joined
    texts.

    Args:
        task: the task.
        train: rows that the baselines are fitted to.
        test: rows that they are evaluated on.
        embed: computes the backbone's embeddings of texts, [texts, d].
        seed: random seed of the regressions.

    Returns:
        baseline → metric → percent.
    """
    truths = np.array([task.read_label(row) for row in train])
    expected = [task.read_label(row) for row in test]
    is_regression = task.numbers is not None
    values, counts = np.unique(truths, return_counts=True)
    common = float(truths.mean()) if is_regression else values[counts.argmax()].item()
    results = {"majority": _add_mean(task.compute_metrics(expected, [common] * len(test)))}

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(train) > 1000 else 1)
    tfidf = vectorizer.fit_transform([_join_texts(task, row) for row in train])
    tfidf_test = vectorizer.transform([_join_texts(task, row) for row in test])
    features = {"tfidf": (tfidf, tfidf_test)}
    if task.answers and len(task.text_columns) == 2:
        scaler = StandardScaler()
        overlap = scaler.fit_transform([_compute_overlap(task, row) for row in train])
        overlap_test = scaler.transform([_compute_overlap(task, row) for row in test])
        features["overlap"] = (
            sparse.hstack([tfidf, overlap]).tocsr(),
            sparse.hstack([tfidf_test, overlap_test]).tocsr(),
        )
    features["frozen"] = _embed_splits(task, train, test, embed)
    for name, (train_features, test_features) in features.items():
        if not task.answers or len(values) == 1:  # logistic regression needs two classes
            model: Any = KNeighborsClassifier(1)
        else:
            model = Ridge(random_state=seed) if is_regression else LogisticRegression(max_iter=2000, random_state=seed)
        predictions = model.fit(train_features, truths).predict(test_features)
        results[name] = _add_mean(task.compute_metrics(expected, predictions.tolist()))
    return results


def _embed_splits(task: Task, train: Rows, test: Rows, embed: Embed) -> tuple[Any, Any]:
    """Return standardized features of both splits, from the backbone's embeddings of each text."""
    if len(task.text_columns) == 2:
        texts = [[str(text) for split in (train, test) for text in split[column]] for column in task.text_columns]
        u, v = (embed(column) for column in texts)
        features = np.concatenate([u, v, np.abs(u - v), u * v], axis=1)  # [rows, 4d]
    else:
        features = embed([_join_texts(task, row) for split in (train, test) for row in split])  # [rows, d]
    scaler = StandardScaler().fit(features[: len(train)])
    return scaler.transform(features[: len(train)]), scaler.transform(features[len(train) :])


def evaluate_all_baselines(
    tasks: Mapping[str, Task], rows: Path, embed: Embed, seed: int
) -> dict[str, dict[str, Metrics]]:
    """Evaluate the baselines of every task on its test split; return task → baseline → metric → percent."""
    results = {}
    for name, task in track(tasks.items(), "baselines", len(tasks)):
        results[name] = evaluate_baselines(
            task, read_rows(rows, name, "train"), read_rows(rows, name, "test"), embed, seed
        )
        log.info("%s: %s", name, ", ".join(f"{kind} {result['mean']:.2f}" for kind, result in results[name].items()))
    return results


def _join_texts(task: Task, row: Mapping[str, Any]) -> str:
    return " ".join(str(row[column]) for column in task.text_columns)


def _compute_overlap(task: Task, row: Mapping[str, Any]) -> list[float]:
    """Compute features of the overlap of two texts: shared words and bigrams, lengths, negation, word order."""
    first, second = (str(row[column]).lower().replace(".", "").replace("?", "").split() for column in task.text_columns)
    a, b = set(first), set(second)
    pairs_a, pairs_b = set(pairwise(first)), set(pairwise(second))
    shared, shared_pairs = len(a & b), len(pairs_a & pairs_b)
    common = [word for word in first if word in b]
    in_order = sum(second.index(x) < second.index(y) for x, y in pairwise(common))
    return [
        shared / max(len(a | b), 1),
        shared / max(len(a), 1),
        shared / max(len(b), 1),
        shared_pairs / max(len(pairs_a | pairs_b), 1),
        shared_pairs / max(len(pairs_b), 1),
        len(first) - len(second),
        abs(len(first) - len(second)),
        float(("not" in a) != ("not" in b)),
        in_order / max(len(common) - 1, 1),
        float(first[:1] == second[:1]),
    ]
