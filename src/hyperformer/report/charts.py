"""The charts of a run, for its page and as SVG files. Lengths are in CSS pixels, which equal matplotlib's points."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from hyperformer.report.html import render_template
from hyperformer.report.statistics import Calibration, ConfusionMatrix, Similarity, ValueGroup
from hyperformer.report.summary import BASELINES, Curve, Learning, Score, Summary
from hyperformer.report.svg import render_elements
from hyperformer.report.theme import LIGHT

DPI = 72
"""Pixels in an inch, as in matplotlib's SVG files."""
SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["quiet"],
    "axes.labelsize": 12,
    **{f"axes.spines.{side}": False for side in ("bottom", "left", "right", "top")},
    "figure.dpi": DPI,
    "font.family": "DejaVu Sans",  # part of matplotlib, so that the layout is the same everywhere
    "font.size": 12,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 1,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": LIGHT["text"],
    "text.parse_math": False,
    **{f"{axis}tick.{name}": value for axis in "xy" for name, value in (("color", LIGHT["line"]), ("major.pad", 8))},
    **{f"{axis}tick.major.size": 0 for axis in "xy"},
    **{f"{axis}tick.labelcolor": LIGHT["quiet"] for axis in "xy"},
}
"""Settings of matplotlib that all charts are drawn with."""
AREA = to_rgba(LIGHT["strong"], 0.33)
MARKERS = {"majority": "|", "tfidf": "s", "overlap": "^", "frozen": "D"}
"""Marker of each baseline; shapes keep them distinguishable without colour."""
PLACES = [((9, 0), "left", "center"), ((-9, 0), "right", "center"), ((0, 9), "center", "bottom"),
          ((0, -9), "center", "top")]  # fmt: skip
"""Places of a name: its offset from the point, and its horizontal and vertical alignment."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its text alternative."""

    label: str
    """Text alternative for screen readers."""
    caption: str
    width: int
    height: int
    elements: str
    """SVG elements of the drawing; their colours are variables of the style of the page or file around them."""


def write_charts(summary: Summary, folder: Path) -> None:
    """Write each chart to `<kind>/<name>.svg` in an existing folder."""
    for kind, charts in draw_charts(summary).items():
        for name, chart in charts.items():
            file = folder / kind / f"{name}.svg"
            file.parent.mkdir(exist_ok=True)
            file.write_text(render_template("chart.svg.jinja", chart=chart), encoding="utf-8")


def draw_charts(summary: Summary) -> dict[str, dict[str, Chart]]:
    """Draw every chart of a run.

    Returns:
        Charts by kind, then by name: a task, `mean` for the mean over tasks, or `tasks` for a chart of all tasks. Kinds
        are `scores`, `learning`, `confusion` (classification with few labels), `numbers` (regression), `calibration`
        and `embeddings`; a kind without data is empty.
    """
    learning, predictions, similarity = summary.learning, summary.predictions, summary.similarity
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser has another font
        return {
            "scores": {"tasks": _draw_scores(summary)},
            "learning": {curve.name: _draw_curve(learning, curve) for curve in learning.curves} if learning else {},
            "confusion": {
                task.name: _draw_confusion_matrix(task.name, task.matrix)
                for task in predictions
                if task.matrix and task.matrix.is_small
            },
            "numbers": {
                task.name: _draw_values(task.name, task.numbers, task.groups)
                for task in predictions
                if task.numbers and task.groups
            },
            "calibration": {name: _draw_reliability(name, item) for name, item in summary.calibrations.items()},
            "embeddings": {"tasks": _draw_embeddings(similarity)} if similarity else {},
        }


def _start(width: int, height: int, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """Create a figure with axes inside margins."""
    figure = Figure(figsize=(width / DPI, height / DPI))
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _finish(figure: Figure, label: str, caption: str) -> Chart:
    width, height = (round(DPI * inches) for inches in figure.get_size_inches())
    return Chart(label, caption, width, height, render_elements(figure, salt=label))


def _shorten(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _draw_scores(summary: Summary) -> Chart:
    """Draw a line for each task and their mean, with the score of the model, its error and the baselines."""
    scores: dict[str, Score] = {**{score.name: score for score in summary.scores}, "mean": summary.mean}
    lowest = min(value for score in scores.values() for value in (score.model, *score.baselines.values()))
    low, line, bottom, legend = 25.0 * (min(0.0, lowest) // 25.0), 44, 28, 60
    figure, axes = _start(600, line * len(scores) + bottom + legend, 12, 24, 2, bottom + legend)
    axes.set(xlim=(low, 100), ylim=(len(scores), 0), xticks=np.arange(low, 101, 25), yticks=[])
    axes.grid(axis="x")
    heights = np.arange(len(scores)) + 0.72

    def clip(values: Iterable[float]) -> NDArray[np.float64]:
        return np.clip(list(values), low, 100.0)

    for kind, marker in MARKERS.items():
        values = clip(score.baselines.get(kind, np.nan) for score in scores.values())
        axes.plot(
            values, heights, marker, color=LIGHT["other"], markerfacecolor=LIGHT["card"], markersize=9,
            markeredgewidth=2, label=BASELINES[kind], clip_on=False, zorder=3,
        )  # fmt: skip
    models = clip(score.model for score in scores.values())
    left, right = (clip(score.model + sign * score.error for score in scores.values()) for sign in (-1, 1))
    axes.hlines(heights, left, right, color=LIGHT["strong"], linewidth=2, zorder=4, clip_on=False)
    name = f"{_shorten(summary.method, 24)} (± one standard error)"
    axes.plot(models, heights, "o", color=LIGHT["strong"], markersize=11, label=name, clip_on=False, zorder=5)
    for number, (name, score) in enumerate(scores.items()):
        text = f"{score.model:.1f} ± {score.error:.1f}"
        for x, content, side in ((0, _shorten(name, 50), "left"), (1, text, "right")):
            weight = "bold" if side == "left" else "normal"
            axes.text(x, number + 0.42, content, ha=side, weight=weight, transform=axes.get_yaxis_transform(), zorder=6)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles[-1:] + handles[:-1], names[-1:] + names[:-1], loc="lower left", ncols=2, labelcolor=LIGHT["quiet"]
    )
    parts = ", ".join(f"{name} {score.model:.1f}" for name, score in scores.items())
    return _finish(figure, f"Test scores and baselines: {parts}", "")


def _draw_curve(learning: Learning, curve: Curve) -> Chart:
    """Draw a validation curve over the steps from 0 to the last, with a ring around the best value."""
    steps, values, low = learning.steps, curve.values, learning.minimum
    figure, axes = _start(304, 160, 36, 46, 18, 26)
    axes.set(xlim=(0, steps[-1]), ylim=(low, 100), xticks=[0, steps[-1]], yticks=[low, (low + 100) / 2, 100])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.grid(axis="y")
    axes.plot(steps, values, "o-", color=LIGHT["strong"], linewidth=2, markersize=4, clip_on=False)
    axes.plot(
        steps[curve.best], values[curve.best], "o", color=LIGHT["strong"], fillstyle="none", markersize=10,
        markeredgewidth=2, clip_on=False,
    )  # fmt: skip
    axes.annotate(
        f"{values[-1]:.1f}", (steps[-1], values[-1]), (9, 0), textcoords="offset points", va="center", weight="bold"
    )
    ends = f"{values[0]:.1f} at step {steps[0]:.0f}, {values[-1]:.1f} at step {steps[-1]:.0f}"
    best = f"best {values[curve.best]:.1f} at step {steps[curve.best]:.0f}"
    return _finish(figure, f"{curve.name}: {ends}, {best}", curve.name)


def _draw_reliability(name: str, calibration: Calibration) -> Chart:
    """Draw accuracy against mean probability for each bin; larger markers stand for more rows."""
    figure, axes = _start(310, 264, 48, 20, 14, 46)
    ticks = [0, 0.5, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, xlabel="predicted probability")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y")
    axes.plot([0, 1], [0, 1], "--", color=LIGHT["quiet"], linewidth=1)
    filled = calibration.rows > 0
    x, y = calibration.probability[filled], calibration.right[filled]
    axes.vlines(x, x, y, color=LIGHT["strong"], linewidth=2)
    radius = 2 + 12 * np.sqrt(calibration.rows[filled] / calibration.rows.sum())
    axes.scatter(x, y, (2 * radius) ** 2, facecolor=AREA, edgecolor=LIGHT["strong"], clip_on=False)
    error = f"expected calibration error {100 * calibration.error:.1f} points"
    return _finish(figure, f"{name}: accuracy by predicted probability; {error}", f"{name}: accuracy")


def _draw_confusion_matrix(name: str, matrix: ConfusionMatrix) -> Chart:
    """Draw a confusion matrix, shaded by each entry's share of its row."""
    columns, rows = len(matrix.answers), len(matrix.labels)
    width, height = 108, 40
    figure, axes = _start(150 + width * columns + 10, 48 + height * rows + 6, 150, 10, 48, 6)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.set_xticks(np.arange(columns) + 0.5, [_shorten(answer, 14) for answer in matrix.answers])
    axes.set_yticks(np.arange(rows) + 0.5, [_shorten(label, 18) for label in matrix.labels])
    axes.xaxis.tick_top()
    figure.text(0, 1, "rows: true label; columns: prediction", va="top", color=LIGHT["quiet"])
    for (i, j), count in np.ndenumerate(matrix.counts):
        share = float(matrix.shares[i, j])
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=to_rgba(LIGHT["heat"], share), edgecolor=LIGHT["line"]))
        axes.text(j + 0.5, i + 0.42, str(count), ha="center", weight="bold" if i == j else "normal")
        axes.text(j + 0.5, i + 0.8, f"{share:.1%}", ha="center", color=LIGHT["quiet"])
    return _finish(figure, f"{name}: predictions by true label", f"{name}: confusion matrix")


def _draw_values(name: str, numbers: Sequence[float], groups: Sequence[ValueGroup]) -> Chart:
    """Draw a box plot of predicted values for each true value; whiskers are the 5th and 95th percentiles."""
    figure, axes = _start(330, 266, 48, 10, 12, 46)
    low, high = numbers[0], numbers[-1]
    ticks, margin = [low, (low + high) / 2, high], (high - low) / 15
    axes.set(xlim=(low - margin, high + margin), ylim=(low, high), xticks=ticks, yticks=ticks, xlabel="true value")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y")
    axes.plot([low, high], [low, high], "--", color=LIGHT["quiet"], linewidth=1)
    keys = ("whislo", "q1", "med", "q3", "whishi")
    line = {"color": LIGHT["strong"], "linewidth": 2}
    axes.bxp(
        [dict(zip(keys, group.percentiles, strict=True)) for group in groups],
        positions=[group.truth for group in groups],
        widths=(high - low) * min(0.1, 0.83 / len(groups)),
        patch_artist=True, manage_ticks=False, showcaps=False, showfliers=False,
        boxprops={"facecolor": AREA, "edgecolor": LIGHT["strong"]}, medianprops=line, whiskerprops=line,
    )  # fmt: skip
    label = f"{name}: predicted against true values"
    return _finish(figure, label, label)


def _draw_embeddings(similarity: Similarity) -> Chart:
    """Draw named points, with one scale for both axes; each name is placed where it overlaps least."""
    size = 340
    figure, axes = _start(size, 306, 20, 20, 10, 26)
    axes.set(xlim=(-1.15, 1.15), ylim=(-1.035, 1.035), xticks=[], yticks=[], aspect="equal")
    points = similarity.points / max(float(np.abs(similarity.points).max()), 1e-12)
    axes.axhline(0, color=LIGHT["line"], linewidth=1)
    axes.axvline(0, color=LIGHT["line"], linewidth=1)
    axes.plot(*points.T, "o", color=LIGHT["strong"], markersize=10, clip_on=False)
    horizontal, vertical = 100 * similarity.variance
    variance = f"variance: horizontal {horizontal:.0f}%, vertical {vertical:.0f}%"
    figure.text(1 - 20 / size, 4 / 306, variance, ha="right", color=LIGHT["quiet"])
    occupied = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform(points)]
    for name, (x, y) in zip(similarity.names, points, strict=True):
        occupied.append(_place_name(axes, _shorten(name, 22), (x, y), occupied, size))
    label = f"{len(similarity.names)} tasks on the first two principal components of their embeddings"
    return _finish(figure, label, "Task embeddings, first two principal components")


def _place_name(axes: Axes, name: str, point: tuple[float, float], occupied: Sequence[Bbox], width: float) -> Bbox:
    """Write a name right, left, above or below a point, and return its box."""
    text = axes.annotate(name, point, (0, 0), textcoords="offset points", weight="bold")

    def measure(place: tuple[tuple[int, int], str, str]) -> Bbox:
        offset, horizontal, vertical = place
        text.set(position=offset, horizontalalignment=horizontal, verticalalignment=vertical)
        return text.get_window_extent()

    def count_conflicts(place: tuple[tuple[int, int], str, str]) -> int:
        box = measure(place)
        return box.count_overlaps(occupied) + (box.x0 < 0 or box.x1 > width)

    return measure(min(PLACES, key=count_conflicts))
