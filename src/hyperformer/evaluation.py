"""Scores anything that answers, and the baselines that a trained model stands beside."""

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

from hyperformer import text
from hyperformer.data import SPLITS, Rows, Writer, read_rows
from hyperformer.progress import watched
from hyperformer.tasks import Task
from hyperformer.types import Answer, HyperFormerError, RowError, Split

log = logging.getLogger(__name__)

Answerer = Callable[[str, Sequence[Mapping[str, Any]]], list[Answer]]
Metrics = dict[str, float]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def metrics(task: Task, rows: Rows, answers: Sequence[Answer]) -> Metrics:
    """The task's metrics of these answers, in percent, and their `mean`.

    `collapsed` is 1 where all rows got one answer but do not have one, else 0. Where a closed task's answers were
    generated, `outside` is how many are none of its answers: they count as wrong.
    """
    truths = [task.truth(row) for row in rows]
    found = _with_mean(task.metrics(truths, [task.prediction(answer) for answer in answers]))
    found["collapsed"] = float(_distinct(task, answers) == 1 < len(set(truths)))
    if task.answers and not any(answer.probabilities for answer in answers):
        found["outside"] = float(sum(answer.label not in task.answers for answer in answers))
    return found


def _distinct(task: Task, answers: Sequence[Answer]) -> int:
    """How many different answers there are; for regression by the grid's number that is nearest to the expected one."""
    if task.numbers is None:
        return len({answer.label for answer in answers})
    return len({None if a.value is None else text.nearest(task.numbers, a.value) for a in answers})


def _with_mean(found: Metrics) -> Metrics:
    return {**found, "mean": float(np.mean(list(found.values())))}


def evaluate(answer: Answerer, task: Task, rows: Rows, split: Split = "test") -> tuple[Metrics, pd.DataFrame]:
    """Compute metrics in percent, and one line a row: source, true answer, answer, its probability or number.

    Raises:
        HyperFormerError: a row cannot be answered; task, split and row are named.
    """
    try:
        answers = answer(task.name, list(rows))
    except RowError as error:
        raise HyperFormerError(f"task {task.name!r}, {split}, row {error.row + 1}: {error.reason}") from None
    table = pd.DataFrame(
        {
            "source": [text.joined(text.render(task.settings.text, row)) for row in rows],
            "truth": [task.answer_text(row) for row in rows],
            "answer": [found.label for found in answers],
            "probability": [found.probabilities.get(found.label) for found in answers],
        }
    ).dropna(axis="columns", how="all")  # what was generated has no probability
    if task.numbers is not None:
        table["value"] = [found.value for found in answers]
    return metrics(task, rows, answers), table


def evaluate_all(
    answer: Answerer, tasks: Mapping[str, Task], rows: Path
) -> tuple[dict[str, dict[str, Metrics]], Writer]:
    """Metrics of every task on validation and test, and what writes the predictions as `<task>/<split>.csv`.

    Args:
        rows: the folder of checked rows.
    Returns:
        split → task → metric → percent, where the task `mean` holds the mean over tasks; and the writer.
    """
    found: dict[str, dict[str, Metrics]] = {}
    tables: dict[str, pd.DataFrame] = {}
    for split in SPLITS[1:]:
        found[split] = {}
        for name, task in watched(tasks.items(), f"evaluating on {split}", len(tasks)):
            read = read_rows(rows, name, split)
            found[split][name], tables[f"{name}/{split}.csv"] = evaluate(answer, task, read, split)
            log.info("%s, %s: %s", name, split, said(found[split][name]))
        found[split]["mean"] = {"mean": mean_of(found[split])}

    def write(folder: Path) -> None:
        for name, table in tables.items():
            (folder / name).parent.mkdir(exist_ok=True)
            table.to_csv(folder / name, index=False, float_format="%.6f")

    return found, write


def said(result: Metrics) -> str:
    """A task's metrics as a line of text, with what a reader should be warned of."""
    words = [f"{name} {value:.2f}" for name, value in result.items() if name not in ("collapsed", "outside")]
    if result.get("outside"):
        words.append(f"{result['outside']:.0f} answers outside the task's")
    if result.get("collapsed"):
        words.append("ONE ANSWER ONLY: the predictions have collapsed")
    return ", ".join(words)


def mean_of(results: Mapping[str, Metrics]) -> float:
    """The mean over tasks of each task's mean metric: the number by which checkpoints are chosen."""
    return float(np.mean([result["mean"] for result in results.values()]))


def standard_error(task: Task, result: Metrics, rows: int) -> float:
    """The standard error of the task's mean metric in percent points, by its normal approximation over `rows` rows."""
    share = min(max(result["mean"] / 100.0, 0.0), 1.0)
    spread = 1.0 - share**2 if task.numbers is not None else (share * (1.0 - share)) ** 0.5
    if "matthews" in result:
        spread = (1.0 - share**2) ** 0.5
    return 100.0 * spread / rows**0.5


def baselines(task: Task, train: Rows, test: Rows, embed: Embed, seed: int) -> dict[str, Metrics]:
    """What simple methods reach on `test`: `majority`, `tfidf`, `overlap`, `frozen`.

    `majority` is the commonest label or text, or the mean of a graded task. `tfidf` is logistic regression (ridge for
    graded tasks, the text of the nearest training row for generation) on TF-IDF of words and word pairs; `overlap` adds
    how two texts overlap, for closed tasks with two text columns. `frozen` is the same regression on the frozen
    backbone's embeddings: u of a text; u, v, |u - v| and u · v of two (as in Conneau et al. 2017, section 3.1).

    Args:
        embed: what gives the backbone's embeddings.
    """
    truths = np.array([task.truth(row) for row in train])
    expected = [task.truth(row) for row in test]
    graded = task.numbers is not None
    values, counts = np.unique(truths, return_counts=True)
    common = float(truths.mean()) if graded else values[counts.argmax()].item()
    found = {"majority": _with_mean(task.metrics(expected, [common] * len(test)))}

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(train) > 1000 else 1)
    words = vectorizer.fit_transform([_joined(task, row) for row in train])
    words_test = vectorizer.transform([_joined(task, row) for row in test])
    features = {"tfidf": (words, words_test)}
    if task.answers and len(task.text_columns) == 2:
        scaler = StandardScaler()
        pairs = scaler.fit_transform([_overlap(task, row) for row in train])
        pairs_test = scaler.transform([_overlap(task, row) for row in test])
        features["overlap"] = (sparse.hstack([words, pairs]).tocsr(), sparse.hstack([words_test, pairs_test]).tocsr())
    features["frozen"] = _frozen(task, train, test, embed)
    for name, (given, asked) in features.items():
        if not task.answers or len(values) == 1:  # the only answer there is is the nearest row's
            model: Any = KNeighborsClassifier(1)
        else:
            model = Ridge(random_state=seed) if graded else LogisticRegression(max_iter=2000, random_state=seed)
        predictions = model.fit(given, truths).predict(asked)
        found[name] = _with_mean(task.metrics(expected, predictions.tolist()))
    return found


def _frozen(task: Task, train: Rows, test: Rows, embed: Embed) -> tuple[Any, Any]:
    """Standardised features of both splits from the backbone's embeddings of each text."""
    if len(task.text_columns) == 2:
        texts = [[str(text) for part in (train, test) for text in part[column]] for column in task.text_columns]
        u, v = (embed(column) for column in texts)
        features = np.concatenate([u, v, np.abs(u - v), u * v], axis=1)  # [rows, 4d]
    else:
        features = embed([_joined(task, row) for part in (train, test) for row in part])  # [rows, d]
    scaler = StandardScaler().fit(features[: len(train)])
    return scaler.transform(features[: len(train)]), scaler.transform(features[len(train) :])


def baselines_all(tasks: Mapping[str, Task], rows: Path, embed: Embed, seed: int) -> dict[str, dict[str, Metrics]]:
    """`baselines` of every task on its test split: task → baseline → metric → percent."""
    found = {}
    for name, task in watched(tasks.items(), "baselines", len(tasks)):
        found[name] = baselines(task, read_rows(rows, name, "train"), read_rows(rows, name, "test"), embed, seed)
        log.info("%s: %s", name, ", ".join(f"{kind} {result['mean']:.2f}" for kind, result in found[name].items()))
    return found


def _joined(task: Task, row: Mapping[str, Any]) -> str:
    return " ".join(str(row[column]) for column in task.text_columns)


def _overlap(task: Task, row: Mapping[str, Any]) -> list[float]:
    """How two texts overlap: shared words and word pairs by either length, lengths, negations, order."""
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
