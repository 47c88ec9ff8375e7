"""The sections on a run's test predictions: its mistakes, and whether its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hyperformer.report import predictions
from hyperformer.report.figures import Picture
from hyperformer.report.markup import Safe, Strong, Table, answer, details, escaped, grid, paragraph, table
from hyperformer.report.pictures import MATRIX, calibrations
from hyperformer.report.run import Run
from hyperformer.tasks import Task

PAIRS, MISTAKES, LONGEST = 15, 3, 300
"""The most confusions of a task of many labels, mistakes of a task, and characters of a text."""


def mistakes(run: Run, shown: Mapping[str, Picture]) -> str:
    """Where it is wrong: a matrix of each classification task, predicted by true numbers, and the worst answers."""
    parts, given = [], run.answers
    wrong = {name: float((given[name]["truth"] != given[name]["answer"]).mean()) for name in run.tasks}
    told = {name: share for name, share in wrong.items() if run.tasks[name].numbers is None}
    for name, task in run.tasks.items():
        if task.numbers is not None:
            found = _numbers(task, task.numbers, given[name], shown.get(name))
        elif task.answers:
            found = _confusion(task, given[name])
        else:
            found = paragraph(f"{100 * (1 - wrong[name]):.1f}% are the expected text, word for word.")
        parts.append(f"<div><h3>{escaped(name)}</h3>\n{found}{_worst(task, given[name])}</div>\n")
    most = max(told, key=told.__getitem__, default=None)
    return (
        answer(
            f"The task with most wrong answers is {most}: {100 * told[most]:.1f}% of its test rows."
            if most
            else "All answers are numbers; the pictures show how far off they are."
        )
        + paragraph("In a matrix a row is a truth and a column an answer; right answers are bold. Of the test split.")
        + grid(parts, "grid broad")
    )


def _confusion(task: Task, found: pd.DataFrame) -> str:
    counts = predictions.confusion(found["truth"].tolist(), found["answer"].tolist(), task.answers)
    names = [*task.answers, *(["none of these"] if counts[:, -1].any() else [])]
    counts = counts[:, : len(names)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pairs = [(counts[i, j], i, j) for i in range(len(task.answers)) for j in range(len(names)) if i != j]
    pairs = sorted((pair for pair in pairs if pair[0]), key=lambda pair: (-pair[0], *pair[1:]))
    said = paragraph("All its answers are right.")
    if pairs:
        count, i, j = pairs[0]
        said = paragraph(
            f'The commonest mistake: "{names[j]}" where the truth is "{names[i]}", '
            f"{count} of {counts[i].sum()} rows, {100 * shares[i, j]:.1f}%."
        )
    if len(task.answers) > MATRIX:
        rows = [[names[i], names[j], str(count), f"{100 * shares[i, j]:.1f}%"] for count, i, j in pairs[:PAIRS]]
        head = ["truth", "answer", "rows", "share of the truth"]
        return said + table(Table(head, rows), f"{task.name}: the commonest confusions")

    def cell(i: int, j: int) -> str:
        count = str(counts[i, j])
        return Safe(f"{escaped(Strong(count) if i == j else count)}<br>{100 * shares[i, j]:.1f}%")

    lines = [[name, *(cell(i, j) for j in range(len(names)))] for i, name in enumerate(task.answers)]
    return said + table(Table(["truth", *names], lines), f"{task.name}: truth and answer", shares.tolist())


def _numbers(task: Task, numbers: list[float], found: pd.DataFrame, shown: Picture | None) -> str:
    if shown is None:
        return paragraph("None of its answers is a number.")
    grouped = predictions.by_truth(found, task.answers, numbers)
    columns = ["mean", "p5", "p25", "p50", "p75", "p95"]
    rows = [[f"{line['truth']:g}", f"{line['rows']:.0f}", *(f"{line[key]:.2f}" for key in columns)]
            for line in grouped.to_dict("records")]  # fmt: skip
    head = ["truth", "rows", "mean", *(f"{key[1:]}th percentile" for key in columns[1:])]
    return (
        str(shown)
        + paragraph("Line: 5th to 95th percentile; box: quartiles and median; dashed: as it should be.")
        + details("The numbers", table(Table(head, rows), f"{task.name}: predicted by true number"))
    )


def _worst(task: Task, found: pd.DataFrame) -> str:
    numbers = dict(zip(task.answers, task.numbers, strict=True)) if task.numbers is not None else None
    chosen = predictions.worst(found, numbers, MISTAKES)
    if chosen.empty:
        return ""
    items = []
    for line in chosen.to_dict("records"):
        said = line["answer"] if np.isnan(line.get("value", np.nan)) else f"{line['value']:.2f}"
        if numbers is None and not np.isnan(line.get("probability", np.nan)):
            said += f" ({100 * line['probability']:.1f}%)"
        pairs = {"text": line["source"], "truth": line["truth"], "answer": said}
        items.append(
            f"<dl>{''.join(f'<dt>{key}</dt><dd>{escaped(_short(text))}</dd>' for key, text in pairs.items())}</dl>\n"
        )
    return details("The worst answers", "".join(items))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def calibration(run: Run, shown: Mapping[str, Picture]) -> str:
    """Whether probabilities can be believed: reliability of each classification task that has any."""
    found = calibrations(run)
    if not found:
        return answer("No classification task has probabilities: there are none, or the answers were generated.")
    worst = max(found, key=lambda name: found[name].error)
    mean = sum(one.error for one in found.values()) / len(found)
    rows, bins = [], []
    for name, one in found.items():
        total = one.rows.sum()
        said, right = (100 * float(one.rows @ share / total) for share in (one.probability, one.right))
        rows.append([name, str(total), f"{said:.1f}", f"{right:.1f}", f"{said - right:+.1f}",
                     Strong(f"{100 * one.error:.1f}"), f"{100 * one.chance:.1f}"])  # fmt: skip
        bins += [
            [
                name,
                f"{100 * place // predictions.BINS} to {100 * (place + 1) // predictions.BINS}%",
                str(count),
                f"{100 * p:.1f}",
                f"{100 * share:.1f}",
            ]
            for place, (count, p, share) in enumerate(zip(one.rows, one.probability, one.right, strict=True))
            if count
        ]
    head = ["task", "rows", "mean probability", "right", "too sure by", "calibration error", "by chance"]
    return (
        answer(
            f"On average they are off by {100 * mean:.1f} points; worst is {worst}, by {100 * found[worst].error:.1f}."
        )
        + paragraph(
            "Where 80% is said, 80% should be right: on the dashed line; below it a task is too sure. The error is the "
            f"expected calibration error over {predictions.BINS} bins, in points; the last column is about what chance "
            "alone would give so many rows if each probability were true."
        )
        + table(Table(head, rows), "Probabilities of the answers on the test split, percent")
        + grid(map(str, shown.values()))
        + details(
            "The numbers of each bin",
            table(Table(["task", "bin", "rows", "mean probability", "right"], bins), "Bins of probability, percent"),
        )
    )
