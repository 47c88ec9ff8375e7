"""The pictures of a run, for the page and as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyperformer.report import figures, predictions
from hyperformer.report.figures import Picture
from hyperformer.report.predictions import Calibration
from hyperformer.report.run import Run
from hyperformer.report.scores import by_task, means

MATRIX = 12
"""The most labels of a matrix."""


def pictures(run: Run) -> dict[str, dict[str, Picture]]:
    """What they show → a task's name, `mean` or `tasks` → the picture.

    `scores`, `learning`, `confusion` of classification, `numbers` of regression, `calibration`, and `embeddings`,
    each for what has any.
    """
    return {
        "scores": {"tasks": figures.bars(run.method, {**by_task(run), "mean": means(run)})},
        "learning": _learning(run),
        "confusion": _confusion(run),
        "numbers": _numbers(run),
        "calibration": {name: figures.reliability(name, found) for name, found in calibrations(run).items()},
        "embeddings": _embeddings(run),
    }


def write(run: Run, folder: Path) -> None:
    """Writes each picture as `<what it shows>/<name>.svg`."""
    for kind, shown in pictures(run).items():
        for name, picture in shown.items():
            file = folder / kind / f"{name}.svg"
            file.parent.mkdir(exist_ok=True)
            file.write_text(picture.alone(), encoding="utf-8")


def calibrations(run: Run) -> dict[str, Calibration]:
    """Of the classification tasks whose answers have probabilities."""
    found = {}
    for name, task in run.tasks.items():
        if task.answers and task.numbers is None and "probability" in run.answers[name]:
            scored = run.answers[name].dropna(subset="probability")
            right = (scored["truth"] == scored["answer"]).to_numpy()
            found[name] = predictions.calibration(scored["probability"].to_numpy(dtype=np.float64), right)
    return found


def validated(run: Run) -> list[str]:
    """What there is a curve of: the mean, and the tasks."""
    return ["mean", *(name for name in run.tasks if name in run.history[0])] if run.history else []


def lowest(run: Run) -> float:
    """Where the curves' common scale begins, in percent."""
    values = [line[name] for line in run.history for name in validated(run)]
    return min(90.0, 10.0 * (min(values) // 10.0))


def _learning(run: Run) -> dict[str, Picture]:
    steps = [line["step"] for line in run.history]
    return {
        name: figures.curve(name, steps, [line[name] for line in run.history], lowest(run), steps[-1])
        for name in validated(run)
    }


def _confusion(run: Run) -> dict[str, Picture]:
    found = {}
    for name, task in run.tasks.items():
        if task.answers and task.numbers is None and len(task.answers) <= MATRIX:
            given = run.answers[name]
            counts = predictions.confusion(given["truth"].tolist(), given["answer"].tolist(), task.answers)
            found[name] = figures.matrix(name, task.answers, counts)
    return found


def _numbers(run: Run) -> dict[str, Picture]:
    found = {}
    for name, task in run.tasks.items():
        if task.numbers is not None and not run.answers[name]["value"].isna().all():
            grouped = predictions.by_truth(run.answers[name], task.answers, task.numbers)
            found[name] = figures.boxes(name, grouped, task.numbers[0], task.numbers[-1])
    return found


def _embeddings(run: Run) -> dict[str, Picture]:
    found = run.embeddings()
    if found is None or len(found[0]) == 1:
        return {}
    return {"tasks": figures.scatter(found[0], *predictions.principal(found[1]))}
