"""Is the graph the model? The same rows through torch and through the bundle's own runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hyperformer.runtime import Bundle
from hyperformer.types import HyperFormerError, Scores, Source

ALONE = 8  # rows that are also compared one by one, without padding
FEW, FAR = 0.02, 10  # this share of the texts may differ by up to so many times the tolerance
SAME = 0.01
"""Points by which rounding may move a metric."""


def compare(
    expected: Sequence[Scores], bundle: Bundle, sources: Sequence[Source], tolerance: float
) -> dict[str, float]:
    """Compares scores and answers on source texts, the first of them alone and all in padded batches.

    A few texts may differ by more than `tolerance`: a trained model amplifies rounding on some, so that torch's own
    scores in single precision are as far from those in double. What is wrong in a graph shows on more, or shows more.

    Args:
        expected: torch's scores of each source.
        tolerance: largest difference of a score on nearly all sources.
    Returns:
        `rows`, `ties` (rows whose two best answers are closer than a score may differ, and whose answers differ),
        `beyond` (rows that differ by more than `tolerance`), and `largest_difference` of a score.
    Raises:
        HyperFormerError: scores differ by more than they may, or an answer differs without a tie.
    """
    alone = [scores for source in sources[:ALONE] for scores in bundle.scores([source])]
    pairs = [
        *zip(sources, expected, alone, strict=False),
        *zip(sources, expected, bundle.scores(sources), strict=True),
    ]
    gaps = {source: _difference(one, other) for source, one, other in pairs}
    worst = max(gaps, key=gaps.__getitem__)
    beyond = sum(gap > tolerance for gap in gaps.values())
    if gaps[worst] > FAR * tolerance or beyond > FEW * len(gaps):
        raise HyperFormerError(
            f"the graph of task {bundle.manifest.task!r} differs from torch by {gaps[worst]:.2e} on {worst!r}, and by "
            f"more than export.tolerance {tolerance:.0e} on {beyond} of {len(gaps)} texts; the graph is not published"
        )
    ties = 0
    for source, one, other in pairs[len(alone) :]:
        best, answer = (max(range(len(s.values)), key=s.values.__getitem__) for s in (one, other))
        if best != answer:
            first, second = sorted(one.values, reverse=True)[:2]
            if first - second > max(tolerance, gaps[source]):
                raise HyperFormerError(
                    f"the graph of task {bundle.manifest.task!r} answers {source!r} otherwise than torch; "
                    "it is not published"
                )
            ties += 1
    found = {"rows": len(sources), "ties": ties, "beyond": beyond}
    return {**found, "largest_difference": float(f"{gaps[worst]:.3g}")}


def _difference(one: Scores, other: Scores) -> float:
    """The largest difference of a score; infinite where one is no number."""
    found = max(abs(a - b) for a, b in zip(one.values, other.values, strict=True))
    return math.inf if any(math.isnan(a - b) for a, b in zip(one.values, other.values, strict=True)) else found


def same_metric(task: str, got: float, expected: float, found: Mapping[str, float]) -> None:
    """Sees to it that the graph's metric is torch's, ties aside.

    Args:
        got, expected: in percent.
        found: what `compare` found.
    Raises:
        HyperFormerError: it is not.
    """
    allowed = SAME + 100.0 * found["ties"] / found["rows"]
    if abs(got - expected) > allowed:
        raise HyperFormerError(
            f"the graph of task {task!r} reaches {got:.3f} on validation where torch reached {expected:.3f}; evaluate "
            "the checkpoint again; the graph is not published"
        )
