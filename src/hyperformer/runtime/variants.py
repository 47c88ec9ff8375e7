"""The ways to run a bundle on this machine: their speed, and how their answers differ from those in float32."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer, Source
from hyperformer.runtime import Bundle, load

TIE = 0.02
"""Difference of the two highest probabilities below which either label may be the answer."""
LARGEST_SHARE = 0.01
"""Maximum share of rows that may have another label than in float32, without ties."""
BATCH = 32
"""Rows of a batch."""
LENGTHS = (32, 128)
"""Tokens of the single row and of the rows of a batch, if there are no texts."""
RANDOM_ROWS = 128
"""Number of rows of random tokens, if there are no texts."""
FEWEST_ROUNDS = 8
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"precision": "int8"},
    "OpenVINO": {"provider": "openvino"},
    "CUDA": {"provider": "cuda"},
}
"""Options of `load` by variant."""


def count_changes(expected: Sequence[Answer], answers: Sequence[Answer]) -> tuple[int, int]:
    """Count the answers whose label differs from the expected one.

    Returns:
        The number of different labels without ties, and the number of ties: rows whose two highest expected
        probabilities differ by less than `TIE`.
    """
    margins = []
    for wanted, answer in zip(expected, answers, strict=True):
        if wanted.label != answer.label:
            first, second = sorted(wanted.probabilities.values(), reverse=True)[:2]
            margins.append(first - second)
    ties = sum(margin < TIE for margin in margins)
    return len(margins) - ties, ties


@dataclass(frozen=True)
class Measurement:
    """The speed of a variant, and the comparison of its answers with those in float32.

    Attributes:
        name: name of the variant, a key of `OPTIONS`.
        single: median milliseconds of a single row.
        batch: median milliseconds of a batch.
        changed: number of rows with another label, without ties.
        ties: number of rows with another label whose two labels are nearly equally likely.
        rows: number of rows.
    """

    name: str
    single: float
    batch: float
    changed: int
    ties: int
    rows: int

    @property
    def usable(self) -> bool:
        """True if few enough labels change."""
        return self.changed <= LARGEST_SHARE * self.rows


def open_variants(folder: Path, threads: int | None, allow_unpublished: bool) -> tuple[dict[str, Bundle], list[str]]:
    """Load a bundle in every way that this machine offers.

    Returns:
        The loaded bundle by variant, and for each other variant a sentence that says why it cannot be loaded.

    Raises:
        HyperFormerError: the float32 graph cannot be loaded, or the folder has several tasks.
    """
    opened, reasons = {}, []
    for name, options in OPTIONS.items():
        try:
            bundle = load(folder, threads, allow_unpublished=allow_unpublished, **options)
        except HyperFormerError as error:
            if name == "float32":
                raise
            reasons.append(f"{name}: {error}")
            continue
        if not isinstance(bundle, Bundle):
            raise HyperFormerError(f"{folder} contains the tasks {', '.join(bundle)}; expected one. Name one of them.")
        opened[name] = bundle
    return opened, reasons


def measure_variants(bundles: dict[str, Bundle], sources: Sequence[Source], seconds: float) -> list[Measurement]:
    """Measure the speed of variants in turn, so that all of them meet the same load of the machine.

    Args:
        bundles: the loaded bundle by variant, `float32` first.
        sources: texts of rows; if there are none, random tokens are measured.
        seconds: the minimum time for single rows, and then for batches, of all variants together.

    Returns:
        The measurement of each variant.
    """
    float32 = bundles["float32"]
    if sources:
        encoded = float32.encode(sources)[0]
        singles, batches = encoded, [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    else:
        singles, batches = _draw_tokens(float32)
    answers = {
        name: [answer for batch in batches for answer in bundle.answer_tokens(batch)]
        for name, bundle in bundles.items()
    }
    single = _time(bundles, [[ids] for ids in singles], seconds)
    batch = _time(bundles, batches, seconds)
    return [
        Measurement(name, single[name], batch[name], *count_changes(answers["float32"], got), len(got))
        for name, got in answers.items()
    ]


def _draw_tokens(bundle: Bundle) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Return rows of random tokens: single rows, and batches."""
    draw, size = np.random.default_rng(0), bundle.vocabulary_size
    short, long = (min(length, bundle.manifest.max_source_tokens) for length in LENGTHS)
    rows = draw.integers(0, size, (RANDOM_ROWS, long)).tolist()
    return [row[:short] for row in rows], [rows[start : start + BATCH] for start in range(0, RANDOM_ROWS, BATCH)]


def _time(bundles: dict[str, Bundle], inputs: Sequence[Sequence[list[int]]], seconds: float) -> dict[str, float]:
    """Return the median milliseconds of each bundle for one of the inputs."""
    durations: dict[str, list[float]] = {name: [] for name in bundles}
    rounds, start = 0, time.perf_counter()
    while rounds < FEWEST_ROUNDS or time.perf_counter() - start < seconds:
        for name, bundle in bundles.items():
            rows = inputs[rounds % len(inputs)]
            bundle.answer_tokens(rows)  # not timed, because the threads of the previous variant may still spin
            durations[name].append(_time_once(bundle.answer_tokens, rows))
        rounds += 1
    return {name: 1e3 * statistics.median(times) for name, times in durations.items()}


def _time_once(function: Callable[[Sequence[list[int]]], Any], argument: Sequence[list[int]]) -> float:
    start = time.perf_counter()
    function(argument)
    return time.perf_counter() - start
