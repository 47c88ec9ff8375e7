from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from hyperformer.embedded.suite import draw_rows

Row = dict[str, Any]


@cache
def _sample(task: str, split: Any, count: int, seed: int) -> list[Row]:
    return list(draw_rows(task, split, count, seed))


@pytest.fixture(scope="session")
def sample() -> Callable[..., list[Row]]:
    """Return the cached function `sample(task, split, count, seed)` of rows of a task."""
    return lambda task, split="train", count=150, seed=0: _sample(task, split, count, seed)
