"""Errors that users can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HyperFormerError(Exception):
    """An error that the user can fix. Its message says what was got, what was expected, and what to do."""


class RowError(HyperFormerError):
    """Inference failed for a row.

    Attributes:
        row: Index of the row in the request, from 0.
        reason: Error message without the prefix that names the row.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row + 1}: {reason}")
        self.row, self.reason = row, reason


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of the error's type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown name: the most similar known name, or all known names if none is similar."""
    similar = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {similar[0]!r}?" if similar else f"expected one of {', '.join(sorted(known))}"
