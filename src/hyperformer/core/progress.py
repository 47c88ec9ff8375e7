"""Progress bars, progress log lines, and the recorded duration of pipeline steps."""

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

from hyperformer.core.files import write_text

log = logging.getLogger(__name__)

LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log lines if there is no terminal."""
STEPS = "steps.json"
T = TypeVar("T")


@contextmanager
def progress_bar(label: str, total: int, done: int = 0) -> Iterator[Any]:
    """Show a progress bar on a terminal, below the log lines; elsewhere show nothing."""
    if not sys.stderr.isatty():
        yield tqdm(disable=True)
        return
    with (
        logging_redirect_tqdm(),
        tqdm(desc=label, total=total, initial=done, leave=False, dynamic_ncols=True) as progress,
    ):
        yield progress


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield items and report progress: a bar on a terminal, elsewhere log lines at intervals of `LOG_INTERVAL`."""
    last_logged = time.monotonic()
    with progress_bar(label, total) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress.update()
            if progress.disable and time.monotonic() - last_logged > LOG_INTERVAL:
                last_logged = time.monotonic()
                log.info("%s: %d of %d", label, done, total)


def record_duration(folder: Path, step: str, seconds: float) -> None:
    """Record the duration of a step in a folder, and replace an earlier duration of this step."""
    durations = {**read_durations(folder), step: round(seconds, 1)}
    write_text(folder / STEPS, json.dumps(durations, indent=1) + "\n")


def read_durations(folder: Path) -> dict[str, float]:
    """Return the duration of each step that `record_duration` recorded in a folder, in seconds; none if damaged."""
    try:
        seconds: dict[str, float] = json.loads((folder / STEPS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return seconds
