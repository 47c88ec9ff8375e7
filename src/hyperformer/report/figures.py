"""Pictures as SVG; lengths are in CSS pixels, and colours come from the style of what they stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hyperformer.report.markup import escaped
from hyperformer.report.predictions import Calibration
from hyperformer.report.scores import BASELINES
from hyperformer.report.style import COLOURS, DRAWING

SHAPES = {
    "model": '<circle r="6" class="model"/>',
    "majority": '<path d="M0-7V7" class="other"/>',
    "tfidf": '<rect x="-4.5" y="-4.5" width="9" height="9" class="other"/>',
    "overlap": '<path d="M0-6L5.5 4.5H-5.5Z" class="other"/>',
    "frozen": '<path d="M0-6L6 0L0 6L-6 0Z" class="other"/>',
}
"""A shape for each, so that colour alone tells nothing."""


def marks(method: str) -> dict[str, str]:
    """The name of each shape."""
    return {"model": f"{method}, ± one standard error", **BASELINES}


def legend(names: Mapping[str, str]) -> str:
    """The shapes with their names, as many in a line as there is room for."""
    shown = (
        f'<li><svg viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">{SHAPES[kind]}</svg> '
        f"{escaped(name)}</li>"
        for kind, name in names.items()
    )
    return f'<ul class="legend">{"".join(shown)}</ul>\n'


@dataclass(frozen=True)
class Picture:
    """A drawing of some width and height, what it shows in words, and its caption, if it has one.

    `broad`: as wide as there is room, its widths are in percent then; `names`: of the shapes in it, by kind.
    """

    label: str
    size: tuple[int, int]
    body: str
    caption: str = ""
    broad: bool = False
    names: Mapping[str, str] | None = None

    def __str__(self) -> str:
        """A part of the page; names of shapes come first."""
        width, height = self.size
        head = f'role="img" aria-label="{escaped(self.label)}"'
        if self.broad:
            drawn = f'<div class="wide"><svg {head} width="100%" height="{height}">{self.body}</svg></div>\n'
        else:
            drawn = f'<svg {head} viewBox="0 0 {width} {height}">{self.body}</svg>'
        if self.caption:
            drawn = f"<figure><figcaption>{escaped(self.caption)}</figcaption>{drawn}</figure>\n"
        return (legend(self.names) if self.names else "") + drawn

    def alone(self) -> str:
        """An SVG file that needs nothing else, in light and dark; names of shapes come last."""
        width, height = self.size
        parts, top = [], 12
        if self.caption:
            parts, top = [_text(12, 26, self.caption, "name")], 38
        parts.append(f'<svg x="12" y="{top}" width="{width}" height="{height}" overflow="visible">{self.body}</svg>')
        low = top + height + 12
        for kind, name in (self.names or {}).items():
            parts.append(f'<svg x="22" y="{low}" overflow="visible">{SHAPES[kind]}{_text(14, 4, name, "quiet")}</svg>')
            low += 20
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escaped(self.label)}" '
            f'width="{width + 24}" height="{low}">\n<style>\n{COLOURS}{DRAWING}</style>\n'
            f'<rect width="100%" height="100%" class="card"/>\n{"".join(parts)}\n</svg>\n'
        )


def _line(x1: str | float, y1: float, x2: str | float, y2: float, kind: str) -> str:
    return f'<line x1="{_told(x1)}" y1="{y1:.1f}" x2="{_told(x2)}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: str | float, y: float, text: str, kind: str) -> str:
    return f'<text x="{_told(x)}" y="{y:.1f}" class="{kind}">{escaped(text)}</text>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _told(length: str | float) -> str:
    return length if isinstance(length, str) else f"{length:.1f}"


def bars(method: str, found: Mapping[str, Mapping[str, float]]) -> Picture:
    """Scores in percent, a row a task: `model`, its standard `error`, and baselines."""
    low = 25.0 * (min(0.0, *(one[kind] for one in found.values() for kind in SHAPES)) // 25.0)
    row, top = 44, 4

    def x(value: float) -> str:
        return f"{2.0 + 94.0 * (min(max(value, low), 100.0) - low) / (100.0 - low):.2f}%"

    end = top + row * len(found)
    parts = []
    for tick in np.arange(low, 101, 25):
        parts += [_line(x(tick), top, x(tick), end, "line"), _text(x(tick), end + 16, f"{tick:.0f}", "quiet middle")]
    for number, (name, one) in enumerate(found.items()):
        y = top + row * number + 32
        parts += [
            _text("0", y - 14, name, "name"),
            _text("100%", y - 14, f"{one['model']:.1f} ± {one['error']:.1f}", "end"),
            _line(x(one["model"] - one["error"]), y, x(one["model"] + one["error"]), y, "error"),
        ]
        parts += [
            f'<svg x="{x(one[kind])}" y="{y}" width="1" height="1" overflow="visible">{SHAPES[kind]}'
            f"<title>{BASELINES.get(kind, kind)} {one[kind]:.1f}</title></svg>"
            for kind in reversed(SHAPES)
        ]
    told = ", ".join(f"{name} {one['model']:.1f}" for name, one in found.items())
    label = f"Test scores beside baselines: {told}"
    return Picture(label, (700, end + 24), "".join(parts), broad=True, names=marks(method))


def curve(name: str, steps: Sequence[float], values: Sequence[float], low: float, last: float) -> Picture:
    """A validation curve, from `low` to 100 percent and from 0 to the `last` step."""
    at = [
        (36 + 222 * step / last, 134 - 116 * (value - low) / (100.0 - low))
        for step, value in zip(steps, values, strict=True)
    ]
    best = int(np.argmax(values))
    parts = []
    for y, value in ((18, 100.0), (76, (100.0 + low) / 2), (134, low)):
        parts += [_line(36, y, 258, y, "line"), _text(30, y + 4, f"{value:.0f}", "quiet end")]
    parts += [
        _text(36, 150, "0", "quiet middle"),
        _text(258, 150, f"{last:.0f}", "quiet middle"),
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}" class="curve"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" class="model"/>' for x, y in at),
        f'<circle cx="{at[best][0]:.1f}" cy="{at[best][1]:.1f}" r="5" class="ring"/>',
        _text(266, at[-1][1] + 4, f"{values[-1]:.1f}", "name"),
    ]
    ends = f"{values[0]:.1f} at step {steps[0]:.0f}, {values[-1]:.1f} at step {steps[-1]:.0f}"
    label = f"{name}: {ends}, best {values[best]:.1f} at step {steps[best]:.0f}"
    return Picture(label, (304, 156), "".join(parts), name)


def reliability(name: str, found: Calibration) -> Picture:
    """The share of right answers against the mean probability of each bin; the area of a mark is its rows."""
    parts = []
    for share in (0, 50, 100):
        parts += [
            _line(40, 210 - 2 * share, 280, 210 - 2 * share, "line"),
            _text(34, 214 - 2 * share, f"{share}%", "quiet end"),
            _text(40 + 2.4 * share, 226, f"{share}%", "quiet middle"),
        ]
    parts.append(_line(40, 210, 280, 10, "dashed"))
    for rows, mean, share in zip(found.rows, found.probability, found.right, strict=True):
        if rows:
            x, y = 40 + 240 * mean, 210 - 200 * share
            radius = 2.0 + 12.0 * float(np.sqrt(rows / found.rows.sum()))
            parts.append(_line(x, 210 - 200 * mean, x, y, "error"))
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="area">'
                f"<title>{rows} rows: {100 * mean:.0f}% said, {100 * share:.0f}% right</title></circle>"
            )
    parts.append(_text(160, 244, "probability of the answer", "quiet middle"))
    label = f"{name}: share of right answers by probability; expected calibration error {100 * found.error:.1f} points"
    return Picture(label, (300, 250), "".join(parts), f"{name}: share right")


def matrix(name: str, labels: Sequence[str], counts: NDArray[np.int64]) -> Picture:
    """Rows of each truth, across, by answer, down [labels, labels + 1], the darker the larger their share."""
    answers = [*labels, *(["none of these"] if counts[:, -1].any() else [])]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [_text(10, 14, "truth, down; answer, across", "quiet")]
    left, top, wide, high = 130, 44, 96, 40
    for j, answer in enumerate(answers):
        parts.append(_text(left + wide * j + wide / 2, top - 8, _short(answer, 14), "quiet middle"))
    for i, truth in enumerate(labels):
        parts.append(_text(left - 8, top + high * i + 25, _short(truth, 18), "quiet end"))
        for j in range(len(answers)):
            x, y, size = left + wide * j, top + high * i, f'width="{wide}" height="{high}"'
            parts += [
                f'<rect x="{x}" y="{y}" {size} class="cell" fill-opacity="{shares[i, j]:.2f}"/>',
                _text(x + wide / 2, y + 18, str(counts[i, j]), "name middle" if i == j else "middle"),
                _text(x + wide / 2, y + 33, f"{100 * shares[i, j]:.1f}%", "quiet middle"),
            ]
    whole = (left + wide * len(answers) + 10, top + high * len(labels) + 4)
    return Picture(f"{name}: answers by truth", whole, "".join(parts), f"{name}: truth and answer")


def boxes(name: str, found: pd.DataFrame, low: float, high: float) -> Picture:
    """The predicted numbers by true number: a line from the 5th to the 95th percentile, a box of the quartiles."""

    def x(number: float) -> float:
        return 56 + 240 * (number - low) / (high - low)

    def y(number: float) -> float:
        return 212 - 200 * (number - low) / (high - low)

    half = min(12.0, 100.0 / max(len(found), 1))
    parts = []
    for number in (low, (low + high) / 2, high):
        parts += [
            _line(40, y(number), 310, y(number), "line"),
            _text(34, y(number) + 4, f"{number:g}", "quiet end"),
            _text(x(number), 232, f"{number:g}", "quiet middle"),
        ]
    parts.append(_line(x(low), y(low), x(high), y(high), "dashed"))
    for line in found.to_dict("records"):
        left, right, top = x(line["truth"]) - half, x(line["truth"]) + half, y(line["p75"])
        height = max(y(line["p25"]) - top, 1.0)
        parts += [
            _line(left + half, y(line["p5"]), left + half, y(line["p95"]), "error"),
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{2 * half:.1f}" height="{height:.1f}" class="area"/>',
            _line(left, y(line["p50"]), right, y(line["p50"]), "error"),
        ]
    parts.append(_text(176, 250, "truth", "quiet middle"))
    label = f"{name}: predicted by true number"
    return Picture(label, (320, 256), "".join(parts), label)


def scatter(names: Sequence[str], points: NDArray[np.float64], shares: NDArray[np.float64]) -> Picture:
    """Points [n, 2] with their names beside them, in one scale for both directions."""
    scale = 130.0 / max(float(np.abs(points).max()), 1e-12)
    at = [(170 + scale * float(x), 145 - scale * float(y)) for x, y in points]
    variance = f"across {100 * shares[0]:.0f}%, up {100 * shares[1]:.0f}% of the variance"
    parts = [_line(20, 145, 320, 145, "line"), _line(170, 10, 170, 280, "line")]
    parts += [_text(320, 300, variance, "quiet end")]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    for name, (x, y) in zip(names, at, strict=True):
        shown = _short(name, 22)
        wide = 7.0 * len(shown)  # about, as the font is the reader's
        places = [
            (x + 9, y + 4, x + 9, "name"),
            (x - 9, y + 4, x - 9 - wide, "name end"),
            (x, y - 9, x - wide / 2, "name middle"),
            (x, y + 18, x - wide / 2, "name middle"),
        ]
        boxes = [(left, low - 10, left + wide, low + 2) for _, low, left, _ in places]
        best = min(range(len(places)), key=lambda place: (_touched(boxes[place], taken), place))
        taken.append(boxes[best])
        across, low, _, kind = places[best]
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="model"/>', _text(across, low, shown, kind)]
    label = f"{len(names)} tasks on the first two principal components of their embeddings"
    return Picture(label, (340, 306), "".join(parts), "Task embeddings, first two principal components")


def _touched(box: tuple[float, ...], taken: Sequence[tuple[float, ...]]) -> int:
    """How many boxes of left, top, right and bottom a box touches; one more where it leaves the picture."""
    outside = box[0] < 0 or box[2] > 340
    return outside + sum(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
    )
