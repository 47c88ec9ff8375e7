"""Charts as SVG; lengths are in CSS pixels, and colours come from the style of the page or file around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hyperformer.report.markup import escape
from hyperformer.report.predictions import Calibration
from hyperformer.report.scores import BASELINES
from hyperformer.report.style import COLOURS, DRAWING

NO_LABEL = "not a label"
"""Name of the column for predictions that are not labels of the task."""
SHAPES = {
    "model": '<circle r="6" class="model"/>',
    "majority": '<path d="M0-7V7" class="other"/>',
    "tfidf": '<rect x="-4.5" y="-4.5" width="9" height="9" class="other"/>',
    "overlap": '<path d="M0-6L5.5 4.5H-5.5Z" class="other"/>',
    "frozen": '<path d="M0-6L6 0L0 6L-6 0Z" class="other"/>',
}
"""Marker of the model and of each baseline; shapes keep them distinguishable without colour."""


def name_markers(method: str) -> dict[str, str]:
    """Return the legend text of each marker."""
    return {"model": f"{method} (± one standard error)", **BASELINES}


def render_legend(names: Mapping[str, str]) -> str:
    """Render markers and their names as an HTML list."""
    items = (
        f'<li><svg viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">{SHAPES[kind]}</svg> '
        f"{escape(name)}</li>"
        for kind, name in names.items()
    )
    return f'<ul class="legend">{"".join(items)}</ul>\n'


@dataclass(frozen=True)
class Chart:
    """An SVG drawing with its text alternative."""

    label: str
    """Text alternative for screen readers."""
    size: tuple[int, int]
    """Width and height in pixels."""
    body: str
    """SVG elements of the drawing."""
    caption: str = ""
    full_width: bool = False
    """True for a chart as wide as the page allows; horizontal positions in `body` are then in percent."""
    names: Mapping[str, str] | None = None
    """Legend: the name of each kind of marker in `body`."""

    def __str__(self) -> str:
        """Render the chart as HTML, with its legend above it."""
        width, height = self.size
        attributes = f'role="img" aria-label="{escape(self.label)}"'
        if self.full_width:
            svg = f'<div class="wide"><svg {attributes} width="100%" height="{height}">{self.body}</svg></div>\n'
        else:
            svg = f'<svg {attributes} viewBox="0 0 {width} {height}">{self.body}</svg>'
        if self.caption:
            svg = f"<figure><figcaption>{escape(self.caption)}</figcaption>{svg}</figure>\n"
        return (render_legend(self.names) if self.names else "") + svg

    def render_file(self) -> str:
        """Render the chart as a self-contained SVG file, with its legend below it."""
        width, height = self.size
        elements, top = [], 12
        if self.caption:
            elements, top = [_text(12, 26, self.caption, "name")], 38
        elements.append(f'<svg x="12" y="{top}" width="{width}" height="{height}" overflow="visible">{self.body}</svg>')
        bottom = top + height + 12
        for kind, name in (self.names or {}).items():
            entry = f"{SHAPES[kind]}{_text(14, 4, name, 'quiet')}"
            elements.append(f'<svg x="22" y="{bottom}" overflow="visible">{entry}</svg>')
            bottom += 20
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(self.label)}" '
            f'width="{width + 24}" height="{bottom}">\n<style>\n{COLOURS}{DRAWING}</style>\n'
            f'<rect width="100%" height="100%" class="card"/>\n{"".join(elements)}\n</svg>\n'
        )


def _line(x1: str | float, y1: float, x2: str | float, y2: float, kind: str) -> str:
    return f'<line x1="{_length(x1)}" y1="{y1:.1f}" x2="{_length(x2)}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: str | float, y: float, text: str, kind: str) -> str:
    return f'<text x="{_length(x)}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _length(length: str | float) -> str:
    return length if isinstance(length, str) else f"{length:.1f}"


def draw_scores(method: str, scores: Mapping[str, Mapping[str, float]]) -> Chart:
    """Draw one line per task, with the score of the `model`, its standard `error` and the baselines.

    Args:
        method: The name of the method, which is the model's name in the legend.
        scores: Scores in percent by task, as `hyperformer.report.scores.collect_scores` returns them.
    """
    low = 25.0 * (min(0.0, *(score[kind] for score in scores.values() for kind in SHAPES)) // 25.0)
    row, top = 44, 4

    def x(value: float) -> str:
        return f"{2.0 + 94.0 * (min(max(value, low), 100.0) - low) / (100.0 - low):.2f}%"

    end = top + row * len(scores)
    elements = []
    for tick in np.arange(low, 101, 25):
        elements += [
            _line(x(tick), top, x(tick), end, "line"),
            _text(x(tick), end + 16, f"{tick:.0f}", "quiet middle"),
        ]
    for number, (name, score) in enumerate(scores.items()):
        y = top + row * number + 32
        elements += [
            _text("0", y - 14, name, "name"),
            _text("100%", y - 14, f"{score['model']:.1f} ± {score['error']:.1f}", "end"),
            _line(x(score["model"] - score["error"]), y, x(score["model"] + score["error"]), y, "error"),
        ]
        elements += [
            f'<svg x="{x(score[kind])}" y="{y}" width="1" height="1" overflow="visible">{SHAPES[kind]}'
            f"<title>{BASELINES.get(kind, kind)} {score[kind]:.1f}</title></svg>"
            for kind in reversed(SHAPES)
        ]
    summary = ", ".join(f"{name} {score['model']:.1f}" for name, score in scores.items())
    label = f"Test scores and baselines: {summary}"
    return Chart(label, (700, end + 24), "".join(elements), full_width=True, names=name_markers(method))


def draw_curve(name: str, steps: Sequence[float], values: Sequence[float], low: float, last: float) -> Chart:
    """Draw a validation curve: scores from `low` to 100 percent, over the steps from 0 to `last`."""
    points = [
        (36 + 222 * step / last, 134 - 116 * (value - low) / (100.0 - low))
        for step, value in zip(steps, values, strict=True)
    ]
    best = int(np.argmax(values))
    elements = []
    for y, value in ((18, 100.0), (76, (100.0 + low) / 2), (134, low)):
        elements += [_line(36, y, 258, y, "line"), _text(30, y + 4, f"{value:.0f}", "quiet end")]
    elements += [
        _text(36, 150, "0", "quiet middle"),
        _text(258, 150, f"{last:.0f}", "quiet middle"),
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="curve"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" class="model"/>' for x, y in points),
        f'<circle cx="{points[best][0]:.1f}" cy="{points[best][1]:.1f}" r="5" class="ring"/>',
        _text(266, points[-1][1] + 4, f"{values[-1]:.1f}", "name"),
    ]
    ends = f"{values[0]:.1f} at step {steps[0]:.0f}, {values[-1]:.1f} at step {steps[-1]:.0f}"
    label = f"{name}: {ends}, best {values[best]:.1f} at step {steps[best]:.0f}"
    return Chart(label, (304, 156), "".join(elements), name)


def draw_reliability(name: str, calibration: Calibration) -> Chart:
    """Draw accuracy against mean probability for each bin; larger markers stand for more rows."""
    elements = []
    for share in (0, 50, 100):
        elements += [
            _line(40, 210 - 2 * share, 280, 210 - 2 * share, "line"),
            _text(34, 214 - 2 * share, f"{share}%", "quiet end"),
            _text(40 + 2.4 * share, 226, f"{share}%", "quiet middle"),
        ]
    elements.append(_line(40, 210, 280, 10, "dashed"))
    for rows, mean, share in zip(calibration.rows, calibration.probability, calibration.right, strict=True):
        if rows:
            x, y = 40 + 240 * mean, 210 - 200 * share
            radius = 2.0 + 12.0 * float(np.sqrt(rows / calibration.rows.sum()))
            elements.append(_line(x, 210 - 200 * mean, x, y, "error"))
            elements.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="area">'
                f"<title>{rows} rows: mean probability {100 * mean:.0f}%, accuracy {100 * share:.0f}%</title></circle>"
            )
    elements.append(_text(160, 244, "predicted probability", "quiet middle"))
    error = f"expected calibration error {100 * calibration.error:.1f} points"
    label = f"{name}: accuracy by predicted probability; {error}"
    return Chart(label, (300, 250), "".join(elements), f"{name}: accuracy")


def draw_confusion_matrix(name: str, labels: Sequence[str], counts: NDArray[np.int64]) -> Chart:
    """Draw a confusion matrix, shaded by each entry's share of its row.

    Args:
        name: The task.
        labels: The labels of the task.
        counts: Number of rows by true label and prediction, [labels, labels + 1]; the last column is for predictions
            that are not labels.
    """
    answers = [*labels, *([NO_LABEL] if counts[:, -1].any() else [])]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    elements = [_text(10, 14, "rows: true label; columns: prediction", "quiet")]
    left, top, width, height = 130, 44, 96, 40
    for j, answer in enumerate(answers):
        elements.append(_text(left + width * j + width / 2, top - 8, _shorten(answer, 14), "quiet middle"))
    for i, truth in enumerate(labels):
        elements.append(_text(left - 8, top + height * i + 25, _shorten(truth, 18), "quiet end"))
        for j in range(len(answers)):
            x, y, size = left + width * j, top + height * i, f'width="{width}" height="{height}"'
            elements += [
                f'<rect x="{x}" y="{y}" {size} class="cell" fill-opacity="{shares[i, j]:.2f}"/>',
                _text(x + width / 2, y + 18, str(counts[i, j]), "name middle" if i == j else "middle"),
                _text(x + width / 2, y + 33, f"{100 * shares[i, j]:.1f}%", "quiet middle"),
            ]
    total = (left + width * len(answers) + 10, top + height * len(labels) + 4)
    return Chart(f"{name}: predictions by true label", total, "".join(elements), f"{name}: confusion matrix")


def draw_boxes(name: str, summary: pd.DataFrame, low: float, high: float) -> Chart:
    """Draw a box plot of predicted values for each true value; whiskers are the 5th and 95th percentiles.

    Args:
        name: The task.
        summary: Percentiles, as `hyperformer.report.predictions.summarize_by_truth` returns them.
        low: The smallest value of the task.
        high: The largest value of the task.
    """

    def x(number: float) -> float:
        return 56 + 240 * (number - low) / (high - low)

    def y(number: float) -> float:
        return 212 - 200 * (number - low) / (high - low)

    half = min(12.0, 100.0 / max(len(summary), 1))
    elements = []
    for number in (low, (low + high) / 2, high):
        elements += [
            _line(40, y(number), 310, y(number), "line"),
            _text(34, y(number) + 4, f"{number:g}", "quiet end"),
            _text(x(number), 232, f"{number:g}", "quiet middle"),
        ]
    elements.append(_line(x(low), y(low), x(high), y(high), "dashed"))
    for line in summary.to_dict("records"):
        left, right, top = x(line["truth"]) - half, x(line["truth"]) + half, y(line["p75"])
        height = max(y(line["p25"]) - top, 1.0)
        elements += [
            _line(left + half, y(line["p5"]), left + half, y(line["p95"]), "error"),
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{2 * half:.1f}" height="{height:.1f}" class="area"/>',
            _line(left, y(line["p50"]), right, y(line["p50"]), "error"),
        ]
    elements.append(_text(176, 250, "true value", "quiet middle"))
    label = f"{name}: predicted against true values"
    return Chart(label, (320, 256), "".join(elements), label)


def draw_scatter(names: Sequence[str], points: NDArray[np.float64], shares: NDArray[np.float64]) -> Chart:
    """Draw named points, with one scale for both axes; each name is placed where it overlaps least.

    Args:
        names: The names of the points.
        points: The coordinates of the points, [n, 2].
        shares: The share of the variance that each axis explains, [2].
    """
    scale = 130.0 / max(float(np.abs(points).max()), 1e-12)
    centres = [(170 + scale * float(x), 145 - scale * float(y)) for x, y in points]
    variance = f"variance: horizontal {100 * shares[0]:.0f}%, vertical {100 * shares[1]:.0f}%"
    elements = [_line(20, 145, 320, 145, "line"), _line(170, 10, 170, 280, "line")]
    elements += [_text(320, 300, variance, "quiet end")]
    occupied = [(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    for name, (x, y) in zip(names, centres, strict=True):
        text = _shorten(name, 22)
        width = 7.0 * len(text)  # an estimate: the reader's browser chooses the font
        candidates = [
            (x + 9, y + 4, x + 9, "name"),
            (x - 9, y + 4, x - 9 - width, "name end"),
            (x, y - 9, x - width / 2, "name middle"),
            (x, y + 18, x - width / 2, "name middle"),
        ]
        boxes = [(left, bottom - 10, left + width, bottom + 2) for _, bottom, left, _ in candidates]
        best = min(range(len(candidates)), key=lambda index: (_count_overlaps(boxes[index], occupied), index))
        occupied.append(boxes[best])
        anchor, bottom, _, kind = candidates[best]
        elements += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="model"/>', _text(anchor, bottom, text, kind)]
    label = f"{len(names)} tasks on the first two principal components of their embeddings"
    return Chart(label, (340, 306), "".join(elements), "Task embeddings, first two principal components")


def _count_overlaps(box: tuple[float, ...], occupied: Sequence[tuple[float, ...]]) -> int:
    """Count the boxes that overlap `box`, and add 1 if `box` crosses the chart's left or right edge.

    A box has its left, top, right and bottom coordinates, in this order.
    """
    outside = box[0] < 0 or box[2] > 340
    return outside + sum(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in occupied
    )
