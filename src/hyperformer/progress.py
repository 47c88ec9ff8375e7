"""What a person sees of work that takes more than a few seconds."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

SECONDS = 10.0  # between two lines where there is no terminal
STEPS = "steps.json"
T = TypeVar("T")


@contextmanager
def bar(what: str, total: int, done: int = 0) -> Iterator[Any]:
    """A live line on a terminal, with log lines above it, and nothing elsewhere; call `update` on what comes."""
    if not sys.stderr.isatty():
        yield tqdm(disable=True)
        return
    with logging_redirect_tqdm(), tqdm(desc=what, total=total, initial=done, leave=False, dynamic_ncols=True) as shown:
        yield shown


def watched(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """`items` as they come: with a bar on a terminal, elsewhere with a line every `SECONDS`."""
    said = time.monotonic()
    with bar(what, total) as shown:
        for done, item in enumerate(items, start=1):
            yield item
            shown.update()
            if shown.disable and time.monotonic() - said > SECONDS:
                said = time.monotonic()
                log.info("%s: %d of %d", what, done, total)


def note(folder: Path, step: str, seconds: float) -> None:
    """Keeps in a folder how long a step took, in place of the last time it was made."""
    file = folder / STEPS
    beside = file.with_name(f".{STEPS}.new")
    beside.write_text(json.dumps({**noted(folder), step: round(seconds, 1)}, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)


def noted(folder: Path) -> dict[str, float]:
    """Seconds by step, as `note` kept them."""
    file = folder / STEPS
    found: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
