"""Requests for answers: read, checked against task and limits, answered in batches, and counted.

The event loop only moves bytes. One thread reads and writes what is short, another what is long, so that neither the
loop nor a short request waits until a long one is parsed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hyperformer import text
from hyperformer.runtime import Bundle
from hyperformer.server import protocol
from hyperformer.server.batching import Batcher, Closing, ModelFault, QueueFull, size_of
from hyperformer.server.metrics import Metrics
from hyperformer.server.protocol import VERSION, BadRequest, InferRequest, TooLarge
from hyperformer.server.registry import Registry
from hyperformer.server.settings import ServerSettings
from hyperformer.types import Answer, HyperFormerError, Source

PATIENCE = 16
"""A body is read, and dropped, up to this multiple of its limit; then the connection is closed."""
GONE = 499  # the client has left, as nginx counts it
SHORT = 64 << 10  # bytes of a body that takes about a millisecond to parse
FEW = 4096  # numbers of a response that takes about a millisecond to write
LAST_WORDS = 0.5  # seconds to send 503 to whoever could not be answered before the end
OCTETS, JSON = "application/octet-stream", "application/json"

T = TypeVar("T")


class Unknown(HyperFormerError):
    """No such task, or none that can answer."""


STATUS: dict[type[HyperFormerError], int] = {
    BadRequest: 400,
    Unknown: 404,
    TooLarge: 413,
    QueueFull: 429,
    ModelFault: 500,
    Closing: 503,
}


def find_bundle(registry: Registry, name: str, number: str) -> Bundle:
    """Find the bundle that answers a task.

    Raises:
        Unknown: there is none, or not of this version.
    """
    bundle = registry[name]
    if bundle is None:
        index = registry.index()
        reason = index[name][1] if name in index else f"unknown task {name!r:.100}; there are {', '.join(index)}"
        raise Unknown(reason)
    if number != VERSION:
        raise Unknown(f"the task {name!r} has no version {number!r:.20}; take {VERSION}")
    return bundle


@dataclass(frozen=True)
class Question:
    """A request that was checked: the texts of its rows, and what each costs."""

    request: InferRequest
    sources: Sequence[Source]
    sizes: Sequence[int]


class Inference:
    """The route that infers, from the first byte of a body to the response."""

    def __init__(self, settings: ServerSettings, registry: Registry, batcher: Batcher, metrics: Metrics) -> None:
        self.settings, self.registry, self.batcher, self.metrics = settings, registry, batcher, metrics
        self._short, self._long = (ThreadPoolExecutor(1, f"{length} requests") for length in ("short", "long"))
        self._tasks: set[asyncio.Task[object]] = set()

    async def infer(self, request: Request, name: str, number: str = VERSION) -> Response:
        """The answers to rows."""
        began = time.monotonic()
        status = 500
        known = self.registry[name] is not None
        self._remember(asyncio.current_task())
        try:
            response = await self._respond(request, name, number)
            status = 200
            self.metrics.seconds.labels(name).observe(time.monotonic() - began)
            return response
        except HyperFormerError as error:
            status = STATUS.get(type(error), 400)
            raise
        except HTTPException as error:
            status = error.status_code
            raise
        except ClientDisconnect:
            status = GONE
            raise
        except asyncio.CancelledError:  # the time after SIGTERM is over
            status = STATUS[Closing]
            raise Closing("the server ends before it could answer; ask another one") from None
        finally:
            self.metrics.requests.labels(name if known else "unknown", status).inc()

    async def close(self) -> None:
        """Wait a moment until those who could not be answered are told so, then end the threads."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS)
        for lane in (self._short, self._long):
            lane.shutdown(wait=False, cancel_futures=True)

    def _remember(self, task: asyncio.Task[object] | None) -> None:
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _respond(self, request: Request, name: str, number: str) -> Response:
        bundle = find_bundle(self.registry, name, number)
        body = await read_body(request, self.settings.body_bytes)
        header = request.headers.get(protocol.HEADER)
        question = await self._outside(len(body) <= SHORT, lambda: self._check(bundle, body, header))
        future = self.batcher.ask(bundle, question.sources, request.client, question.sizes)
        answers = await wait_for_answers(request, future)
        self.metrics.rows.labels(name).inc(len(answers))
        self.metrics.truncated.labels(name).inc(sum(answer.truncated for answer in answers))
        content, length = await self._outside(
            len(answers) * len(bundle.manifest.labels) <= FEW,
            lambda: protocol.response(name, question.request, answers, bundle.manifest),
        )
        if length is None:
            return Response(content, media_type=JSON)
        return Response(content, media_type=OCTETS, headers={protocol.HEADER: str(length)})

    async def _outside(self, short: bool, work: Callable[[], T]) -> T:
        """Do work outside of the event loop, what is long behind what is long only."""
        return await asyncio.get_running_loop().run_in_executor(self._short if short else self._long, work)

    def _check(self, bundle: Bundle, body: bytes, header: str | None) -> Question:
        """Check a body against task and limits, what is cheap first, and render its rows."""
        columns, most = text.columns(bundle.manifest.text), self.settings.rows
        request, tensors = protocol.parse(body, header, most * len(columns))
        protocol.check_outputs(request, bundle.manifest)
        rows = protocol.rows_of(request, tensors, columns, most)
        check_texts(rows, self.settings.text_bytes)
        sources = [bundle.source(row) for row in rows]
        tokens = bundle.manifest.max_source_tokens
        return Question(request, sources, [size_of(source, tokens) for source in sources])


def check_texts(rows: Sequence[Mapping[str, str]], longest: int) -> None:
    """Refuse a request without rows, and texts beyond the limit.

    Raises:
        BadRequest: there is no row.
        TooLarge: a text is longer.
    """
    if not rows:
        raise BadRequest("the request holds no row, expected at least one")
    size = max(len(value.encode(errors="replace")) for row in rows for value in row.values())
    if size > longest:
        raise TooLarge(f"a text has {size} bytes, expected at most {longest}; send less of it")


async def read_body(request: Request, most: int) -> bytes:
    """Read a request's body.

    Raises:
        TooLarge: it is larger than it may be.
        HTTPException: it is compressed.
    """
    coding = request.headers.get("Content-Encoding", "")
    if coding.lower() not in ("", "identity"):
        raise HTTPException(415, f"the body is encoded with {coding!r:.20}, expected none")
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= most:
            body += chunk
        elif size > PATIENCE * most:
            raise HTTPException(413, f"the body has more than {size} bytes", {"Connection": "close"})
    if size > most:  # only now: who still sends does not read yet
        raise TooLarge(f"the body has more than {most} bytes; send fewer rows a request")
    return bytes(body)


async def wait_for_answers(request: Request, future: Future[list[Answer]]) -> list[Answer]:
    """Wait for answers as long as their client does.

    Raises:
        ClientDisconnect: the client has left; the batcher drops its rows.
    """
    answers = asyncio.wrap_future(future)
    leaving = asyncio.ensure_future(_wait_until_left(request))
    try:
        either: set[asyncio.Future[Any]] = {answers, leaving}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise ClientDisconnect
        return answers.result()
    finally:
        leaving.cancel()
        answers.cancel()


async def _wait_until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
