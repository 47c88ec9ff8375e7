"""Rows of many requests, answered together: what waits while the model works goes into its next batch."""

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

from hyperformer import text
from hyperformer.runtime import Bundle
from hyperformer.types import Answer, HyperFormerError, Source

log = logging.getLogger(__name__)

LONGEST = 512  # tokens of a text that count
TOKEN_CHARACTERS = 4  # that the model reads, per token
READ_CHARACTERS = 8  # that the tokenizer reads, per token of the longest text
TOKENIZER_SHARE = 6  # characters that a tokenizer reads in the time in which a small model reads one
ROW_CHARACTERS = 128  # of each row of a full batch; one of longer rows holds fewer


class QueueFull(HyperFormerError):
    """More rows wait than may; `seconds` says when to come back."""

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} rows are waiting, and no more may; come back in {seconds} s")
        self.seconds = seconds


class Closing(HyperFormerError):
    """The server is about to end, and takes no more rows."""


class ModelFault(HyperFormerError):
    """The model has no answer to a row that was accepted."""


def size_of(source: Source, tokens: int = LONGEST) -> int:
    """Estimate the cost of a text in characters, those that the model reads and a share of those that are tokenized.

    A tokenizer that normalises reads a character such as U+FDFA as eighteen.
    """
    size = len(unicodedata.normalize("NFKC", text.joined(source)[: tokens * READ_CHARACTERS]))
    return min(tokens * TOKEN_CHARACTERS, size) + size // TOKENIZER_SHARE


@dataclass(eq=False)
class _Request:
    """Rows of a client that wait, from `started` on; `future` is for the answers to all of them."""

    bundle: Bundle
    sources: Sequence[Source]
    sizes: Sequence[int]
    client: Hashable
    number: int
    future: Future[list[Answer]] = field(default_factory=Future)
    answers: list[Answer] = field(default_factory=list)
    started: int = 0

    @property
    def rows(self) -> int:
        return len(self.sources) - self.started


@dataclass
class _Slice:
    """Rows of a request in a batch."""

    request: _Request
    start: int
    end: int

    @property
    def sources(self) -> Sequence[Source]:
        return self.request.sources[self.start : self.end]

    @property
    def size(self) -> int:
        return sum(self.request.sizes[self.start : self.end]) + self.end - self.start


class Batcher:
    """A worker that answers what waits, batch by batch; nothing waits while the worker does.

    Clients share the worker's time equally: each is charged for the seconds that its rows took, and those charged
    least come first (start-time fair queueing, Goyal et al. 1996); among clients that are even, tasks take turns. A
    batch holds rows of one task, at most `batch`, and fewer where texts are long, so that no batch holds up other
    tasks for long. A request larger than that is answered in slices, with other clients' rows between them.

    Args:
        batch: rows of a batch at the most.
        queue: rows that may wait.
        observe: called with the rows of every batch.
    """

    def __init__(self, batch: int, queue: int, observe: Callable[[int], None] = lambda rows: None) -> None:
        self._batch, self._queue, self._observe = batch, queue, observe
        self._waiting: list[_Request] = []
        self._rows = self._numbers = 0
        self._seconds_a_row = 0.0
        self._charged: dict[Hashable, float] = {}  # seconds, of clients that wait or were charged beyond the clock
        self._clock = 0.0  # seconds that each client would have been charged, had it always waited
        self._turns: dict[str, int] = {}  # the number of each task's last batch
        self._open = True
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="batches", daemon=True)
        self._worker.start()

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._rows

    def ask(
        self, bundle: Bundle, sources: Sequence[Source], client: Hashable = None, sizes: Sequence[int] | None = None
    ) -> Future[list[Answer]]:
        """Return a future of the answers to source texts of a task; who cancels it frees its room in the queue.

        Args:
            bundle: the task.
            sources: its texts.
            client: whose turn it is.
            sizes: `size_of` each text, where it is known.
        Raises:
            QueueFull: more rows would wait than may, and no client has more waiting than this.
            Closing: the batcher is closed.
        """
        sizes = sizes or [size_of(source) for source in sources]
        with self._changed:
            if not self._open:
                raise Closing("the server is about to end; ask another one")
            self._numbers += 1
            request = _Request(bundle, sources, sizes, client, self._numbers)
            self._make_room(request)
            self._waiting.append(request)
            self._rows += request.rows
            self._charged[client] = max(self._charged.get(client, 0.0), self._clock)
            self._changed.notify()
        request.future.add_done_callback(lambda future: self._forget(request) if future.cancelled() else None)
        return request.future

    def close(self, drop: bool = False, seconds: float | None = None) -> bool:
        """Take no more rows, answer what waits or drop it, and return whether the worker ended within the seconds."""
        with self._changed:
            self._open = False
            for request in [*self._waiting] if drop else []:
                request.future.cancel()
            self._changed.notify()
        self._worker.join(seconds)
        return not self._worker.is_alive()

    def _make_room(self, request: _Request) -> None:
        """Refuse the newest requests of whoever has most rows waiting, or this one where it is among those."""
        while self._rows + request.rows > self._queue:
            clients, tasks = Counter[Hashable](), Counter[int]()
            for waiting in (request, *self._waiting):
                clients[waiting.client] += waiting.rows
                tasks[id(waiting.bundle)] += waiting.rows
            weights = [(clients[waiting.client], tasks[id(waiting.bundle)]) for waiting in self._waiting]
            heaviest = max(range(len(weights)), key=lambda i: (weights[i], i), default=None)
            full = QueueFull(self._rows, max(1, math.ceil(self._rows * self._seconds_a_row)))
            if heaviest is None or weights[heaviest] <= (clients[request.client], tasks[id(request.bundle)]):
                raise full
            refused = self._waiting[heaviest]
            self._forget(refused)
            _settle(refused, full)

    def _forget(self, request: _Request) -> None:
        """Take a request out of the queue, if it is there."""
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)
                self._rows -= request.rows

    def _work(self) -> None:
        while slices := self._next():
            self._answer(slices)

    def _answer(self, slices: list[_Slice]) -> None:
        """Answer a batch; where it fails, answer each request's rows without the others', so that only one fails."""
        bundle = slices[0].request.bundle
        sources = [source for part in slices for source in part.sources]
        self._observe(len(sources))
        began = time.monotonic()
        try:
            answers = bundle.answer_sources(sources, self._batch)
        except BaseException as error:  # a panic of a library too: nobody else answers what comes next
            if len(slices) == 1:
                log.exception("a batch of %d rows of %s failed", len(sources), bundle.manifest.task)
                self._forget(slices[0].request)
                _settle(slices[0].request, _fault(slices[0], error))
            self._charge(slices, time.monotonic() - began)
            for part in slices if len(slices) > 1 else []:
                self._answer([part])
            return
        self._charge(slices, time.monotonic() - began)
        for part in slices:
            part.request.answers += answers[: part.end - part.start]
            del answers[: part.end - part.start]
            if len(part.request.answers) == len(part.request.sources):
                _settle(part.request, part.request.answers)

    def _charge(self, slices: list[_Slice], seconds: float) -> None:
        """Charge each client of a batch for its share of the time."""
        total, rows = sum(part.size for part in slices), sum(part.end - part.start for part in slices)
        row = seconds / rows
        self._seconds_a_row = row if not self._seconds_a_row else 0.9 * self._seconds_a_row + 0.1 * row
        with self._changed:
            for part in slices:
                client = part.request.client
                self._charged[client] = self._charged.get(client, self._clock) + seconds * part.size / total
            active = {part.request.client for part in slices} | {request.client for request in self._waiting}
            self._clock += seconds / len(active)

    def _next(self) -> list[_Slice]:
        """Choose the next batch; empty where the batcher is closed and nothing waits."""
        with self._changed:
            while self._open and not self._waiting:
                self._changed.wait()
            if not self._waiting:
                return []
            self._advance_clock()
            in_turn = sorted(self._waiting, key=self._turn)
            slices = self._fill([request for request in in_turn if request.bundle is in_turn[0].bundle])
            self._turns[in_turn[0].bundle.manifest.task] = self._numbers = self._numbers + 1
            for part in slices:
                part.request.started = part.end
                self._rows -= part.end - part.start
            self._waiting = [request for request in self._waiting if request.rows]
            return slices

    def _advance_clock(self) -> None:
        """Set the clock to the least charge of those who wait, if that is ahead, and forget charges behind it."""
        clients = {request.client for request in self._waiting}
        self._clock = max(self._clock, min(self._charged[client] for client in clients))
        self._charged = {
            client: seconds for client, seconds in self._charged.items() if client in clients or seconds > self._clock
        }

    def _turn(self, request: _Request) -> tuple[float, int, int]:
        charged = max(self._clock, self._charged[request.client])
        return charged, self._turns.get(request.bundle.manifest.task, 0), request.number

    def _fill(self, in_turn: list[_Request]) -> list[_Slice]:
        """Fill a batch: of the first request as many rows as it holds, of later ones those that it holds whole."""
        slices: list[_Slice] = []
        rows = longest = 0
        for request in in_turn:
            count, widest = 0, longest
            for size in request.sizes[request.started :]:
                wider = max(widest, size)
                fits = rows + count < self._batch and (rows + count + 1) * wider <= self._batch * ROW_CHARACTERS
                if not fits and rows + count:
                    break
                count, widest = count + 1, wider
            if count and (count == request.rows or not slices):
                slices.append(_Slice(request, request.started, request.started + count))
                rows, longest = rows + count, widest
        return slices


def _fault(part: _Slice, error: BaseException) -> BaseException:
    """Name the rows of a request that a model has no answer to, where its error says what is wrong with them."""
    if not isinstance(error, HyperFormerError):
        return error
    whole = part.end - part.start == len(part.request.sources)
    return ModelFault(str(error) if whole else f"rows {part.start + 1} to {part.end} of the request: {error}")


def _settle(request: _Request, outcome: list[Answer] | BaseException) -> None:
    """Give a request its answers or its error, unless its client has left."""
    if not request.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        request.future.set_exception(outcome)
    else:
        request.future.set_result(outcome)
