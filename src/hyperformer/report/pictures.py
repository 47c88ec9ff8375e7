"""The charts of a run, for its page and as SVG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyperformer.report import figures, predictions
from hyperformer.report.figures import Chart
from hyperformer.report.predictions import Calibration
from hyperformer.report.run import Run
from hyperformer.report.scores import average_scores, collect_scores

MAX_MATRIX_LABELS = 12
"""Maximum number of labels of a task whose confusion matrix is shown."""


def draw_charts(run: Run) -> dict[str, dict[str, Chart]]:
    """Draw every chart of a run.

    Returns:
        Charts by kind, then by name: a task, `mean` for the mean over tasks, or `tasks` for a chart of all tasks. Kinds
        are `scores`, `learning`, `confusion` (classification with at most `MAX_MATRIX_LABELS` labels), `numbers`
        (regression), `calibration` and `embeddings`; a kind without data is empty.
    """
    return {
        "scores": {"tasks": figures.draw_scores(run.method, {**collect_scores(run), "mean": average_scores(run)})},
        "learning": _draw_learning(run),
        "confusion": _draw_confusion(run),
        "numbers": _draw_numbers(run),
        "calibration": {
            name: figures.draw_reliability(name, calibration) for name, calibration in measure_calibrations(run).items()
        },
        "embeddings": _draw_embeddings(run),
    }


def write_charts(run: Run, folder: Path) -> None:
    """Write each chart to `<kind>/<name>.svg` in an existing folder."""
    for kind, charts in draw_charts(run).items():
        for name, chart in charts.items():
            file = folder / kind / f"{name}.svg"
            file.parent.mkdir(exist_ok=True)
            file.write_text(chart.render_file(), encoding="utf-8")


def measure_calibrations(run: Run) -> dict[str, Calibration]:
    """Measure the calibration of each classification task whose answers have probabilities."""
    calibrations = {}
    for name, task in run.tasks.items():
        if task.answers and task.numbers is None and "probability" in run.test_predictions[name]:
            scored = run.test_predictions[name].dropna(subset="probability")
            right = (scored["truth"] == scored["answer"]).to_numpy()
            probabilities = scored["probability"].to_numpy(dtype=np.float64)
            calibrations[name] = predictions.measure_calibration(probabilities, right)
    return calibrations


def list_curves(run: Run) -> list[str]:
    """Return the names of the validation curves, if any: `mean`, then the validated tasks."""
    return ["mean", *(name for name in run.tasks if name in run.history[0])] if run.history else []


def choose_axis_minimum(run: Run) -> float:
    """Choose the lower end of the axis that all validation curves share, in percent."""
    values = [line[name] for line in run.history for name in list_curves(run)]
    return min(90.0, 10.0 * (min(values) // 10.0))


def _draw_learning(run: Run) -> dict[str, Chart]:
    steps = [line["step"] for line in run.history]
    return {
        name: figures.draw_curve(name, steps, [line[name] for line in run.history], choose_axis_minimum(run), steps[-1])
        for name in list_curves(run)
    }


def _draw_confusion(run: Run) -> dict[str, Chart]:
    charts = {}
    for name, task in run.tasks.items():
        if task.answers and task.numbers is None and len(task.answers) <= MAX_MATRIX_LABELS:
            table = run.test_predictions[name]
            counts = predictions.confusion_matrix(table["truth"].tolist(), table["answer"].tolist(), task.answers)
            charts[name] = figures.draw_confusion_matrix(name, task.answers, counts)
    return charts


def _draw_numbers(run: Run) -> dict[str, Chart]:
    charts = {}
    for name, task in run.tasks.items():
        if task.numbers is not None and not run.test_predictions[name]["value"].isna().all():
            summary = predictions.summarize_by_truth(run.test_predictions[name], task.answers, task.numbers)
            charts[name] = figures.draw_boxes(name, summary, task.numbers[0], task.numbers[-1])
    return charts


def _draw_embeddings(run: Run) -> dict[str, Chart]:
    embeddings = run.read_task_embeddings()
    if embeddings is None or len(embeddings[0]) == 1:
        return {}
    names, vectors = embeddings
    return {"tasks": figures.draw_scatter(names, *predictions.project_to_principal_components(vectors))}
