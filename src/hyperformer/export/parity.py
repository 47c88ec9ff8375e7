"""Is the graph the model? The same rows through torch and through the bundle's own runtime."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.runtime import Bundle
from hyperformer.types import HyperFormerError, Scores


def compare(
    torch_scores: Sequence[Scores], bundle: Bundle, sources: Sequence[str], tolerance: float
) -> dict[str, float]:
    """Compares scores and answers on source texts.

    Returns:
        `rows`, `ties` (rows whose two best answers are closer than `tolerance` and whose answers differ), and
        `largest_difference` of a score.
    Raises:
        HyperFormerError: a score differs by more than `tolerance`, or an answer differs without a tie.
    """
    found = bundle.scores(sources)
    largest, ties = 0.0, 0
    for source, expected, got in zip(sources, torch_scores, found, strict=True):
        difference = max(abs(a - b) for a, b in zip(expected.values, got.values, strict=True))
        largest = max(largest, difference)
        if difference > tolerance:
            raise HyperFormerError(
                f"the graph of task {bundle.manifest.task!r} differs from torch by {difference:.2e} on {source!r}, "
                f"more than export.tolerance {tolerance:.0e}; the graph is not published"
            )
        best, answer = (max(range(len(s.values)), key=s.values.__getitem__) for s in (expected, got))
        if best != answer:
            first, second = sorted(expected.values, reverse=True)[:2]
            if first - second > tolerance:
                raise HyperFormerError(
                    f"the graph of task {bundle.manifest.task!r} answers {source!r} otherwise than torch; "
                    "it is not published"
                )
            ties += 1
    return {"rows": len(sources), "ties": ties, "largest_difference": float(f"{largest:.3g}")}
