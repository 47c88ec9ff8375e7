"""Is the graph the model? The same rows through torch and through the bundle's own runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from hyperformer.runtime import Bundle
from hyperformer.types import HyperFormerError, Scores

ALONE = 8  # rows that are also compared one by one, without padding
SAME = 0.01
"""Points by which rounding may move a metric."""


def compare(
    expected: Sequence[Scores],
    bundle: Bundle,
    sources: Sequence[str],
    tolerance: float,
    exact: Callable[[], Sequence[Scores]],
) -> dict[str, float]:
    """Compares scores and answers on source texts, the first of them alone and all in padded batches.

    Args:
        expected: torch's scores of each source.
        tolerance: largest difference of a score, unless rounding does more than half of that to torch's own.
        exact: gives torch's scores in double precision; asked only where a score differs by more than `tolerance`.
    Returns:
        `rows`, `ties` (rows whose two best answers are closer than a score may differ, and whose answers differ), and
        `largest_difference` of a score.
    Raises:
        HyperFormerError: a score differs by more than it may, or an answer differs without a tie.
    """
    alone = [scores for source in sources[:ALONE] for scores in bundle.scores([source])]
    found = bundle.scores(sources)
    pairs = [*zip(sources, expected, alone, strict=False), *zip(sources, expected, found, strict=True)]
    largest, worst = max((_difference(one, other), source) for source, one, other in pairs)
    if largest > tolerance:
        tolerance = max(tolerance, 2 * max(map(_difference, expected, exact())))
    if largest > tolerance:
        raise HyperFormerError(
            f"the graph of task {bundle.manifest.task!r} differs from torch by {largest:.2e} on {worst!r}, more than "
            f"export.tolerance and rounding allow, {tolerance:.0e}; the graph is not published"
        )
    ties = 0
    for source, one, other in pairs[len(alone) :]:
        best, answer = (max(range(len(s.values)), key=s.values.__getitem__) for s in (one, other))
        if best != answer:
            first, second = sorted(one.values, reverse=True)[:2]
            if first - second > tolerance:
                raise HyperFormerError(
                    f"the graph of task {bundle.manifest.task!r} answers {source!r} otherwise than torch; "
                    "it is not published"
                )
            ties += 1
    return {"rows": len(sources), "ties": ties, "largest_difference": float(f"{largest:.3g}")}


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
