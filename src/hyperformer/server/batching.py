"""Rows of many requests, answered together: what waits while the model works goes into its next batch."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from hyperformer.runtime import Bundle
from hyperformer.types import Answer, HyperFormerError, Source

log = logging.getLogger(__name__)


class QueueFull(HyperFormerError):
    """More rows wait than may; `seconds` says when to come back."""

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} rows are waiting, and no more may; come back in {seconds} s")
        self.seconds = seconds


class Closing(HyperFormerError):
    """The server is about to end, and takes no more rows."""


@dataclass
class _Asked:
    bundle: Bundle
    sources: Sequence[Source]
    answers: Future[list[Answer]]


class Batcher:
    """A worker that answers what waits, batch by batch; nothing waits while the worker does.

    A batch holds rows of one task: those of the request that has waited longest, and of later ones as far as there is
    room. A request larger than a batch is answered in several, one after another.

    Args:
        batch: rows of a batch at the most.
        queue: rows that may wait.
        observe: told of the rows of every batch.
    """

    def __init__(self, batch: int, queue: int, observe: Callable[[int], None] = lambda rows: None) -> None:
        self._batch, self._queue, self._observe = batch, queue, observe
        self._waiting: deque[_Asked] = deque()
        self._rows = 0
        self._seconds_a_row = 0.0
        self._open = True
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="batches", daemon=True)
        self._worker.start()

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._rows

    def ask(self, bundle: Bundle, sources: Sequence[Source]) -> Future[list[Answer]]:
        """The answers to source texts of a task, in time.

        Raises:
            QueueFull: more rows would wait than may.
            Closing: the batcher is closed.
        """
        asked = _Asked(bundle, sources, Future())
        with self._changed:
            if not self._open:
                raise Closing("the server is about to end; ask another one")
            if self._rows + len(sources) > self._queue:
                raise QueueFull(self._rows, max(1, math.ceil(self._rows * self._seconds_a_row)))
            self._waiting.append(asked)
            self._rows += len(sources)
            self._changed.notify()
        return asked.answers

    def close(self, drop: bool = False) -> None:
        """Answers what waits, or drops it, and takes no more."""
        with self._changed:
            self._open = False
            while drop and self._waiting:
                self._waiting.popleft().answers.cancel()
            self._changed.notify()
        self._worker.join()

    def _work(self) -> None:
        while chosen := self._next():
            chosen = [asked for asked in chosen if asked.answers.set_running_or_notify_cancel()]
            if not chosen:
                continue
            sources = [source for asked in chosen for source in asked.sources]
            self._observe(len(sources))
            began = time.monotonic()
            try:
                answers = chosen[0].bundle.answer_sources(sources, self._batch)
            except BaseException as error:  # a panic of a library too: nobody else answers what comes next
                log.exception("a batch of %d rows of %s failed", len(sources), chosen[0].bundle.manifest.task)
                for asked in chosen:
                    asked.answers.set_exception(error)
                continue
            own = (time.monotonic() - began) / len(sources)
            self._seconds_a_row = own if not self._seconds_a_row else 0.9 * self._seconds_a_row + 0.1 * own
            start = 0
            for asked in chosen:
                end = start + len(asked.sources)
                asked.answers.set_result(answers[start:end])
                start = end

    def _next(self) -> list[_Asked]:
        """The requests of the next batch, in turn; none where the batcher is closed and nothing waits."""
        with self._changed:
            while self._open and not self._waiting:
                self._changed.wait()
            if not self._waiting:
                return []
            first = self._waiting.popleft()
            chosen, rows, others = [first], len(first.sources), deque[_Asked]()
            while self._waiting and rows < self._batch:
                asked = self._waiting.popleft()
                if asked.bundle is first.bundle and rows + len(asked.sources) <= self._batch:
                    chosen.append(asked)
                    rows += len(asked.sources)
                else:
                    others.append(asked)
            self._waiting.extendleft(reversed(others))
            self._rows -= rows
            return chosen
