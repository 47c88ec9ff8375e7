"""Dynamic batching of the rows of many requests: requests that arrive during inference form the next batch."""

from __future__ import annotations

import logging
import math
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer, Source
from hyperformer.runtime import Bundle

log = logging.getLogger(__name__)

DEFAULT_TOKENS = 512
"""Maximum number of tokens that count towards a text's cost, if the task's maximum is unknown."""
TOKEN_CHARACTERS = 4
"""Estimated number of characters of a text that the model reads, for each token of the task's maximum."""
TOKENIZER_CHARACTERS = 8
"""Estimated number of characters of a text that the tokenizer reads, for each token of the task's maximum."""
TOKENIZER_SPEED = 6
"""Number of characters that a tokenizer reads in the time in which a small model reads one character."""
ROW_CHARACTERS = 128
"""Maximum cost of a row, in characters, in a batch of the maximum size; batches of costlier rows have fewer rows."""


class QueueFullError(HyperFormerError):
    """The queue has no room for a request; `seconds` is the time to wait before a retry."""

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"the queue is full: {waiting} rows are waiting. Retry in {seconds} s.")
        self.seconds = seconds


class ShutdownError(HyperFormerError):
    """The server is shutting down and accepts no more rows."""


class ModelError(HyperFormerError):
    """The model failed to predict the answer of an accepted row."""


def estimate_cost(source: Source, max_tokens: int = DEFAULT_TOKENS) -> int:
    """Return the cost of a text: the characters that the model reads, plus a share of those that the tokenizer reads.

    Characters are counted after Unicode normalization, which expands some of them: U+FDFA becomes eighteen characters.
    """
    size = len(unicodedata.normalize("NFKC", text.join_source(source)[: max_tokens * TOKENIZER_CHARACTERS]))
    return min(max_tokens * TOKEN_CHARACTERS, size) + size // TOKENIZER_SPEED


@dataclass(eq=False)
class _Request:
    """A client's request, whose rows from `next_row` on are queued; `future` receives the answers of all its rows."""

    bundle: Bundle
    sources: Sequence[Source]
    costs: Sequence[int]
    client: Hashable
    number: int
    future: Future[list[Answer]] = field(default_factory=Future)
    answers: list[Answer] = field(default_factory=list)
    next_row: int = 0

    @property
    def rows(self) -> int:
        return len(self.sources) - self.next_row


@dataclass
class _Slice:
    """Consecutive rows of a request in a batch."""

    request: _Request
    start: int
    end: int

    @property
    def sources(self) -> Sequence[Source]:
        return self.request.sources[self.start : self.end]

    @property
    def cost(self) -> int:
        return sum(self.request.costs[self.start : self.end]) + self.end - self.start


class Batcher:
    """A queue of rows, and a worker thread that predicts their answers in batches.

    Clients share the worker's time equally: each is charged for the seconds that its rows took, and the client with the
    lowest charge comes first (start-time fair queueing, Goyal et al. 1996); among clients with equal charges, tasks
    take turns. A batch has rows of one task, at most `batch`, and fewer if texts are long, so that no batch delays
    other tasks for long. A larger request is split into slices, between which batches of other clients run.

    Args:
        batch: maximum number of rows in a batch.
        queue: maximum number of rows in the queue.
        observe: called with the number of rows of each batch.
    """

    def __init__(self, batch: int, queue: int, observe: Callable[[int], None] = lambda rows: None) -> None:
        self._batch, self._queue, self._observe = batch, queue, observe
        self._waiting: list[_Request] = []
        self._rows = self._sequence = 0
        self._seconds_per_row = 0.0
        self._charges: dict[Hashable, float] = {}  # seconds, of clients that wait or whose charge exceeds the clock
        self._clock = 0.0  # seconds that a client would be charged if it always had rows in the queue
        self._last_batches: dict[str, int] = {}  # sequence number of each task's last batch
        self._accepting = True
        self._condition = threading.Condition()
        self._worker = threading.Thread(target=self._run, name="batches", daemon=True)
        self._worker.start()

    @property
    def queued_rows(self) -> int:
        """Number of rows in the queue."""
        return self._rows

    def submit(
        self, bundle: Bundle, sources: Sequence[Source], client: Hashable = None, costs: Sequence[int] | None = None
    ) -> Future[list[Answer]]:
        """Queue source texts of a task, and return a future of their answers.

        Cancelling the future removes the texts from the queue.

        Args:
            bundle: the bundle of the task.
            sources: the source texts.
            client: the client that is charged for the texts.
            costs: the `estimate_cost` of each text; by default it is computed here.

        Raises:
            QueueFullError: the queue would exceed its limit, and no request of a client (or, at equal rows, of a task)
                with more rows can be refused instead. The future gets this error if its request is refused later.
            ShutdownError: the batcher is closed.
        """
        costs = costs or [estimate_cost(source) for source in sources]
        with self._condition:
            if not self._accepting:
                raise ShutdownError("the server is shutting down. Use another server.")
            self._sequence += 1
            request = _Request(bundle, sources, costs, client, self._sequence)
            self._make_room(request)
            self._waiting.append(request)
            self._rows += request.rows
            self._charges[client] = max(self._charges.get(client, 0.0), self._clock)
            self._condition.notify()
        request.future.add_done_callback(lambda future: self._dequeue(request) if future.cancelled() else None)
        return request.future

    def close(self, drop: bool = False, timeout: float | None = None) -> bool:
        """Stop accepting rows, and wait until the worker has ended.

        Args:
            drop: whether to drop the queued rows instead of processing them.
            timeout: maximum time to wait, in seconds; None for no limit.

        Returns:
            Whether the worker ended within the time.
        """
        with self._condition:
            self._accepting = False
            for request in [*self._waiting] if drop else []:
                request.future.cancel()
            self._condition.notify()
        self._worker.join(timeout)
        return not self._worker.is_alive()

    def _make_room(self, request: _Request) -> None:
        """Refuse queued requests until the queue has room for a request.

        A request of the client with the most rows is refused first; among its requests, one of the task with the most
        rows; among these, the newest.

        Raises:
            QueueFullError: by this order, the request itself is refused first.
        """
        while self._rows + request.rows > self._queue:
            clients, tasks = Counter[Hashable](), Counter[int]()
            for queued in (request, *self._waiting):
                clients[queued.client] += queued.rows
                tasks[id(queued.bundle)] += queued.rows
            weights = [(clients[queued.client], tasks[id(queued.bundle)]) for queued in self._waiting]
            heaviest = max(range(len(weights)), key=lambda i: (weights[i], i), default=None)
            error = QueueFullError(self._rows, max(1, math.ceil(self._rows * self._seconds_per_row)))
            if heaviest is None or weights[heaviest] <= (clients[request.client], tasks[id(request.bundle)]):
                raise error
            refused = self._waiting[heaviest]
            self._dequeue(refused)
            _complete(refused, error)

    def _dequeue(self, request: _Request) -> None:
        """Remove a request from the queue, if the queue has it."""
        with self._condition:
            if request in self._waiting:
                self._waiting.remove(request)
                self._rows -= request.rows

    def _run(self) -> None:
        while slices := self._next_batch():
            self._answer(slices)

    def _answer(self, slices: list[_Slice]) -> None:
        """Run a batch; if it fails, run each request's rows separately, to fail only the faulty requests."""
        bundle = slices[0].request.bundle
        sources = [source for piece in slices for source in piece.sources]
        self._observe(len(sources))
        start = time.monotonic()
        try:
            answers = bundle.answer_sources(sources, self._batch)
        except BaseException as error:  # also a panic of a Rust library, as the only worker must survive
            if len(slices) == 1:
                log.exception("a batch of %d rows of task %s failed", len(sources), bundle.manifest.task)
                self._dequeue(slices[0].request)
                _complete(slices[0].request, _request_error(slices[0], error))
            self._charge(slices, time.monotonic() - start)
            for piece in slices if len(slices) > 1 else []:
                self._answer([piece])
            return
        self._charge(slices, time.monotonic() - start)
        for piece in slices:
            piece.request.answers += answers[: piece.end - piece.start]
            del answers[: piece.end - piece.start]
            if len(piece.request.answers) == len(piece.request.sources):
                _complete(piece.request, piece.request.answers)

    def _charge(self, slices: list[_Slice], seconds: float) -> None:
        """Charge each client of a batch for its share of the time."""
        total, rows = sum(piece.cost for piece in slices), sum(piece.end - piece.start for piece in slices)
        per_row = seconds / rows
        self._seconds_per_row = per_row if not self._seconds_per_row else 0.9 * self._seconds_per_row + 0.1 * per_row
        with self._condition:
            for piece in slices:
                client = piece.request.client
                self._charges[client] = self._charges.get(client, self._clock) + seconds * piece.cost / total
            active = {piece.request.client for piece in slices} | {request.client for request in self._waiting}
            self._clock += seconds / len(active)

    def _next_batch(self) -> list[_Slice]:
        """Wait for rows and return the next batch; it is empty once the batcher is closed and has no rows."""
        with self._condition:
            while self._accepting and not self._waiting:
                self._condition.wait()
            if not self._waiting:
                return []
            self._advance_clock()
            requests = sorted(self._waiting, key=self._priority)
            slices = self._fill_batch([request for request in requests if request.bundle is requests[0].bundle])
            self._last_batches[requests[0].bundle.manifest.task] = self._sequence = self._sequence + 1
            for piece in slices:
                piece.request.next_row = piece.end
                self._rows -= piece.end - piece.start
            self._waiting = [request for request in self._waiting if request.rows]
            return slices

    def _advance_clock(self) -> None:
        """Advance the clock to the lowest charge of the waiting clients, and remove charges that it has passed."""
        clients = {request.client for request in self._waiting}
        self._clock = max(self._clock, min(self._charges[client] for client in clients))
        self._charges = {
            client: seconds for client, seconds in self._charges.items() if client in clients or seconds > self._clock
        }

    def _priority(self, request: _Request) -> tuple[float, int, int]:
        charge = max(self._clock, self._charges[request.client])
        return charge, self._last_batches.get(request.bundle.manifest.task, 0), request.number

    def _fill_batch(self, requests: list[_Request]) -> list[_Slice]:
        """Return a batch: as many rows of the first request as fit, and later requests that fit completely."""
        slices: list[_Slice] = []
        rows = max_cost = 0
        for request in requests:
            count, request_cost = 0, max_cost
            for cost in request.costs[request.next_row :]:
                padded = max(request_cost, cost)
                fits = rows + count < self._batch and (rows + count + 1) * padded <= self._batch * ROW_CHARACTERS
                if not fits and rows + count:
                    break
                count, request_cost = count + 1, padded
            if count and (count == request.rows or not slices):
                slices.append(_Slice(request, request.next_row, request.next_row + count))
                rows, max_cost = rows + count, request_cost
        return slices


def _request_error(piece: _Slice, error: BaseException) -> BaseException:
    """Return the error of a request; the message names the rows of the slice if they are not the whole request."""
    if not isinstance(error, HyperFormerError):
        return error
    complete = piece.end - piece.start == len(piece.request.sources)
    return ModelError(str(error) if complete else f"rows {piece.start + 1} to {piece.end} of the request: {error}")


def _complete(request: _Request, outcome: list[Answer] | BaseException) -> None:
    """Set the answers or the error of a request, unless its client has disconnected."""
    if not request.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        request.future.set_exception(outcome)
    else:
        request.future.set_result(outcome)
