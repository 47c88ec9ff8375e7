"""The report's sections on test predictions: mistakes and calibration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hyperformer.report import predictions
from hyperformer.report.figures import NO_LABEL, Chart
from hyperformer.report.markup import Emphasis, Markup, Table, answer, details, escape, grid, paragraph, table
from hyperformer.report.pictures import MAX_MATRIX_LABELS, measure_calibrations
from hyperformer.report.run import Run
from hyperformer.tasks import Task

MAX_CONFUSIONS = 15
"""Maximum number of confused label pairs that are listed for a task with many labels."""
MAX_EXAMPLES = 3
"""Maximum number of wrong predictions that are shown for a task."""
MAX_CHARACTERS = 300
"""Maximum number of characters that are shown of a text."""


def render_mistakes(run: Run, charts: Mapping[str, Chart]) -> str:
    """Render each task's mistakes: confusions, a box plot or the exact-match rate, and the worst rows."""
    items, tables = [], run.test_predictions
    wrong = {name: float((tables[name]["truth"] != tables[name]["answer"]).mean()) for name in run.tasks}
    ranked = {name: share for name, share in wrong.items() if run.tasks[name].numbers is None}
    for name, task in run.tasks.items():
        if task.numbers is not None:
            content = _render_numbers(task, task.numbers, tables[name], charts.get(name))
        elif task.answers:
            content = _render_confusion(task, tables[name])
        else:
            content = paragraph(f"{100 * (1 - wrong[name]):.1f}% of the predictions are exactly the expected text.")
        items.append(f"<div><h3>{escape(name)}</h3>\n{content}{_render_worst(task, tables[name])}</div>\n")
    worst = max(ranked, key=ranked.__getitem__, default=None)
    return (
        answer(
            f"The task with the highest error rate is {worst}: {100 * ranked[worst]:.1f}% of its test rows are wrong."
            if worst
            else "All tasks are regression tasks; the charts show how far off the predictions are."
        )
        + paragraph(
            "In a confusion matrix each row is a true label and each column a prediction, counted on the test split; "
            "the counts of correct predictions are bold."
        )
        + grid(items, "grid broad")
    )


def _render_confusion(task: Task, results: pd.DataFrame) -> str:
    counts = predictions.confusion_matrix(results["truth"].tolist(), results["answer"].tolist(), task.answers)
    names = [*task.answers, *([NO_LABEL] if counts[:, -1].any() else [])]
    counts = counts[:, : len(names)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pairs = [(counts[i, j], i, j) for i in range(len(task.answers)) for j in range(len(names)) if i != j]
    pairs = sorted((pair for pair in pairs if pair[0]), key=lambda pair: (-pair[0], *pair[1:]))
    summary = paragraph("All predictions are correct.")
    if pairs:
        count, i, j = pairs[0]
        summary = paragraph(
            f'The most frequent confusion: "{names[i]}" predicted as "{names[j]}" in '
            f"{count} of {counts[i].sum()} rows, {100 * shares[i, j]:.1f}%."
        )
    if len(task.answers) > MAX_MATRIX_LABELS:
        rows = [
            [names[i], names[j], str(count), f"{100 * shares[i, j]:.1f}%"] for count, i, j in pairs[:MAX_CONFUSIONS]
        ]
        header = ["true label", "prediction", "rows", "share of the true label's rows"]
        return summary + table(Table(header, rows), f"{task.name}: most frequent confusions")

    def entry(i: int, j: int) -> str:
        count = str(counts[i, j])
        return Markup(f"{escape(Emphasis(count) if i == j else count)}<br>{100 * shares[i, j]:.1f}%")

    lines = [[name, *(entry(i, j) for j in range(len(names)))] for i, name in enumerate(task.answers)]
    return summary + table(Table(["true label", *names], lines), f"{task.name}: confusion matrix", shares.tolist())


def _render_numbers(task: Task, numbers: list[float], results: pd.DataFrame, chart: Chart | None) -> str:
    if chart is None:
        return paragraph("No prediction is a number.")
    summary = predictions.summarize_by_truth(results, task.answers, numbers)
    columns = ["mean", "p5", "p25", "p50", "p75", "p95"]
    rows = [[f"{line['truth']:g}", f"{line['rows']:.0f}", *(f"{line[key]:.2f}" for key in columns)]
            for line in summary.to_dict("records")]  # fmt: skip
    header = ["true value", "rows", "mean", *(f"{key[1:]}th percentile" for key in columns[1:])]
    return (
        str(chart)
        + paragraph("Line: 5th to 95th percentile; box: quartiles and median; dashed: perfect predictions.")
        + details("Values", table(Table(header, rows), f"{task.name}: predicted against true values"))
    )


def _render_worst(task: Task, results: pd.DataFrame) -> str:
    numbers = dict(zip(task.answers, task.numbers, strict=True)) if task.numbers is not None else None
    worst = predictions.select_worst(results, numbers, MAX_EXAMPLES)
    if worst.empty:
        return ""
    items = []
    for line in worst.to_dict("records"):
        prediction = line["answer"] if np.isnan(line.get("value", np.nan)) else f"{line['value']:.2f}"
        if numbers is None and not np.isnan(line.get("probability", np.nan)):
            prediction += f" ({100 * line['probability']:.1f}%)"
        pairs = {"text": line["source"], "expected": line["truth"], "predicted": prediction}
        items.append(
            f"<dl>{''.join(f'<dt>{key}</dt><dd>{escape(_shorten(text))}</dd>' for key, text in pairs.items())}</dl>\n"
        )
    return details("Worst predictions", "".join(items))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"


def render_calibration(run: Run, charts: Mapping[str, Chart]) -> str:
    """Render the calibration of each classification task whose answers have probabilities."""
    calibrations = measure_calibrations(run)
    if not calibrations:
        return answer("There are no probabilities: no task is a classification task, or the answers were generated.")
    worst = max(calibrations, key=lambda name: calibrations[name].error)
    mean = sum(calibration.error for calibration in calibrations.values()) / len(calibrations)
    rows, bins = [], []
    for name, calibration in calibrations.items():
        total = calibration.rows.sum()
        probability, accuracy = (
            100 * float(calibration.rows @ share / total) for share in (calibration.probability, calibration.right)
        )
        rows.append([name, str(total), f"{probability:.1f}", f"{accuracy:.1f}", f"{probability - accuracy:+.1f}",
                     Emphasis(f"{100 * calibration.error:.1f}"), f"{100 * calibration.chance:.1f}"])  # fmt: skip
        columns = zip(calibration.rows, calibration.probability, calibration.right, strict=True)
        bins += [
            [
                name,
                f"{100 * index // predictions.BINS} to {100 * (index + 1) // predictions.BINS}%",
                str(count),
                f"{100 * p:.1f}",
                f"{100 * share:.1f}",
            ]
            for index, (count, p, share) in enumerate(columns)
            if count
        ]
    header = ["task", "rows", "mean probability", "accuracy", "overconfidence", "calibration error", "by chance"]
    return (
        answer(
            f"The mean calibration error is {100 * mean:.1f} points; the largest is "
            f"{100 * calibrations[worst].error:.1f} points, for {worst}."
        )
        + paragraph(
            "Predictions with a probability of 80% should be correct in 80% of cases: such points are on the dashed "
            "line. Below the line, a task is overconfident. The error is the expected calibration error over "
            f"{predictions.BINS} bins, in percentage points. The last column estimates the error of a perfectly "
            "calibrated model on the same number of rows."
        )
        + table(Table(header, rows), "Calibration on the test split, percent")
        + grid(map(str, charts.values()))
        + details(
            "Values of each bin",
            table(Table(["task", "bin", "rows", "mean probability", "accuracy"], bins), "Calibration bins, percent"),
        )
    )
