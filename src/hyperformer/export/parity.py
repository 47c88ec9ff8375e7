"""Compare an exported graph, run by the bundle's runtime, with PyTorch on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hyperformer.runtime import Bundle
from hyperformer.types import HyperFormerError, Scores, Source

SINGLE_ROWS = 8
"""Rows that are also compared one at a time, without padding."""
OUTLIER_SHARE = 0.02
"""Share of the texts whose scores may differ by more than the tolerance."""
OUTLIER_FACTOR = 10
"""Largest difference of those scores, in multiples of the tolerance."""
METRIC_TOLERANCE = 0.01
"""Largest difference of a metric because of rounding, in points."""


def compare(
    expected: Sequence[Scores], bundle: Bundle, sources: Sequence[Source], tolerance: float
) -> dict[str, float]:
    """Compare scores and labels of source texts, the first ones singly and all in padded batches.

    A few texts may differ by more than `tolerance`: a trained model amplifies rounding on some texts, so that PyTorch's
    scores in float32 differ as much from those in float64. A wrong graph differs on more texts, or by more.

    Args:
        expected: PyTorch's scores of each source.
        bundle: the exported task.
        sources: the source texts.
        tolerance: largest difference of a score, on nearly all sources.

    Returns:
        `rows`, `ties` (rows with different labels whose two best scores are closer than a score may differ),
        `beyond` (rows that differ by more than `tolerance`), and `largest_difference` of a score.

    Raises:
        HyperFormerError: scores differ by more than they may, or a label differs without a tie.
    """
    single = [scores for source in sources[:SINGLE_ROWS] for scores in bundle.scores([source])]
    pairs = [
        *zip(sources, expected, single, strict=False),
        *zip(sources, expected, bundle.scores(sources), strict=True),
    ]
    gaps = {source: _difference(left, right) for source, left, right in pairs}
    worst = max(gaps, key=gaps.__getitem__)
    beyond = sum(gap > tolerance for gap in gaps.values())
    if gaps[worst] > OUTLIER_FACTOR * tolerance or beyond > OUTLIER_SHARE * len(gaps):
        raise HyperFormerError(
            f"the graph of task {bundle.manifest.task!r} differs from PyTorch by {gaps[worst]:.2e} on {worst!r}, and "
            f"by more than export.tolerance {tolerance:.0e} on {beyond} of {len(gaps)} texts. It is not published."
        )
    ties = 0
    for source, reference, scores in pairs[len(single) :]:
        best, label = (max(range(len(s.values)), key=s.values.__getitem__) for s in (reference, scores))
        if best != label:
            first, second = sorted(reference.values, reverse=True)[:2]
            if first - second > max(tolerance, gaps[source]):
                raise HyperFormerError(
                    f"the graph of task {bundle.manifest.task!r} and PyTorch predict different labels for "
                    f"{source!r}. The graph is not published."
                )
            ties += 1
    counts = {"rows": len(sources), "ties": ties, "beyond": beyond}
    return {**counts, "largest_difference": float(f"{gaps[worst]:.3g}")}


def _difference(left: Scores, right: Scores) -> float:
    """Return the largest difference of a score; infinite if any score is NaN."""
    largest = max(abs(a - b) for a, b in zip(left.values, right.values, strict=True))
    return math.inf if any(math.isnan(a - b) for a, b in zip(left.values, right.values, strict=True)) else largest


def check_metric(task: str, got: float, expected: float, parity: Mapping[str, float]) -> None:
    """Check that the graph's metric equals PyTorch's, except for ties.

    Args:
        task: the task's name.
        got: the graph's metric, in percent.
        expected: PyTorch's metric, in percent.
        parity: the result of `compare`.

    Raises:
        HyperFormerError: the metrics differ.
    """
    allowed = METRIC_TOLERANCE + 100.0 * parity["ties"] / parity["rows"]
    if abs(got - expected) > allowed:
        raise HyperFormerError(
            f"the graph of task {task!r} reaches {got:.3f} on validation; expected {expected:.3f} as with PyTorch. "
            "Evaluate the checkpoint again; the graph is not published."
        )
