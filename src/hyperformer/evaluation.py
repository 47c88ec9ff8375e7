"""Metrics of the answers of models and graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.progress import track
from hyperformer.core.types import SPLITS, Answer, Split
from hyperformer.data.storage import Rows, Writer, read_rows
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

Answerer = Callable[[str, Sequence[Mapping[str, Any]]], list[Answer]]
Metrics = dict[str, float]


def compute_metrics(task: Task, rows: Rows, answers: Sequence[Answer]) -> Metrics:
    """Compute the task's metrics in percent, and their `mean`; then measures that are no part of the mean.

    `collapsed` is 1 if all rows got the same answer although their true answers differ, otherwise 0. If the answers of
    a classification or regression task were generated, `outside` is the number of generated texts that are none of the
    task's answers; the other metrics count them as wrong. `auc` is described in `Classification.measure_ranking`.
    """
    truths = [task.read_label(row) for row in rows]
    result = task.compute_metrics(truths, [task.to_prediction(answer) for answer in answers])
    result["mean"] = float(np.mean(list(result.values())))
    result.update(task.measure_ranking(truths, answers))
    result["collapsed"] = float(_count_distinct(task, answers) == 1 < len(set(truths)))
    if task.answers and not any(answer.probabilities for answer in answers):
        result["outside"] = float(sum(answer.label not in task.answers for answer in answers))
    return result


def _count_distinct(task: Task, answers: Sequence[Answer]) -> int:
    """Count the different answers; those of a regression task are first rounded to the nearest number of the grid."""
    if task.numbers is None:
        return len({answer.label for answer in answers})
    return len({None if a.value is None else text.nearest_index(task.numbers, a.value) for a in answers})


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
            "source": [text.join_source(text.render(task.settings.text, row, task.missing)) for row in rows],
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
