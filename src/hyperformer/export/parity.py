"""Compare an exported graph, run by the bundle's runtime, with PyTorch on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Scores, Source
from hyperformer.runtime import Bundle

SINGLE_ROWS = 8
"""Number of rows that are also compared one at a time, without padding."""
OUTLIER_SHARE = 0.02
"""Maximum share of the texts whose scores may differ by more than the tolerance."""
OUTLIER_FACTOR = 10
"""Maximum difference of any score, in multiples of the tolerance."""
METRIC_TOLERANCE = 0.01
"""Maximum difference of a metric that rounding may cause, in percentage points."""


def compare(
    expected: Sequence[Scores], bundle: Bundle, sources: Sequence[Source], tolerance: float
) -> dict[str, float]:
    """Compare the scores and labels of an exported task with PyTorch's.

    All sources are compared in padded batches, and the first few also one at a time. The scores of a few texts may
    differ by more than `tolerance`, because a trained model amplifies rounding on some texts: there, PyTorch's float32
    and float64 scores differ by a similar amount. A wrong graph differs on more texts, or by a larger amount.

    Args:
        expected: PyTorch's scores of each source.
        bundle: the exported task.
        sources: the source texts.
        tolerance: maximum difference of a score, on all but a few sources.

    Returns:
        `rows` (number of sources), `ties` (number of rows whose labels differ because their two best scores are nearly
        equal), `beyond` (number of distinct sources whose scores differ by more than `tolerance`), and
        `largest_difference` (of a score).

    Raises:
        HyperFormerError: the scores of too many texts differ by more than `tolerance`, a score differs by more than
            `OUTLIER_FACTOR` times `tolerance`, or the labels of a row differ although PyTorch's two best scores are not
            nearly equal.
    """
    single = [scores for source in sources[:SINGLE_ROWS] for scores in bundle.scores([source])]
    pairs = [
        *zip(sources, expected, single, strict=False),
        *zip(sources, expected, bundle.scores(sources), strict=True),
    ]
    gaps: dict[Source, float] = {}
    for source, left, right in pairs:
        gaps[source] = max(gaps.get(source, 0.0), _difference(left, right))
    worst = max(gaps, key=gaps.__getitem__)
    beyond = sum(gap > tolerance for gap in gaps.values())
    if gaps[worst] > OUTLIER_FACTOR * tolerance or beyond > OUTLIER_SHARE * len(gaps):
        raise HyperFormerError(
            f"the graph of task {bundle.manifest.task!r} differs from PyTorch by {gaps[worst]:.2e} on {worst!r}, and "
            f"by more than export.tolerance {tolerance:.0e} on {beyond} of {len(gaps)} texts. The graph is not "
            "published. Increase export.tolerance if the differences are acceptable."
        )
    ties = 0
    for index, (source, reference, scores) in enumerate(pairs):
        best, label = (max(range(len(s.values)), key=s.values.__getitem__) for s in (reference, scores))
        if best != label:
            first, second = sorted(reference.values, reverse=True)[:2]
            if first - second > max(tolerance, gaps[source]):
                raise HyperFormerError(
                    f"the graph of task {bundle.manifest.task!r} and PyTorch predict different labels for "
                    f"{source!r}. The graph is not published. Increase export.tolerance if the difference is "
                    "acceptable."
                )
            ties += index >= len(single)  # each row once
    counts = {"rows": len(sources), "ties": ties, "beyond": beyond}
    return {**counts, "largest_difference": float(f"{gaps[worst]:.3g}")}


def _difference(left: Scores, right: Scores) -> float:
    """Return the largest absolute difference of a score, or infinity if any difference is NaN."""
    largest = max(abs(a - b) for a, b in zip(left.values, right.values, strict=True))
    return math.inf if any(math.isnan(a - b) for a, b in zip(left.values, right.values, strict=True)) else largest


def check_metric(task: str, got: float, expected: float, parity: Mapping[str, float]) -> None:
    """Check that the graph's metric equals PyTorch's, except for rounding and ties.

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
