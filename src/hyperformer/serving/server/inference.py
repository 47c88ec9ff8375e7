"""The inference route: read and validate requests, respond to them, and count them.

The event loop only moves bytes. One thread parses and serializes short bodies, and another thread long bodies, so that
neither the event loop nor a short request waits for a long request.
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

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer, Source
from hyperformer.runtime import Bundle
from hyperformer.serving.server import requests, responses
from hyperformer.serving.server.batching import Batcher, ModelError, QueueFullError, ShutdownError, estimate_cost
from hyperformer.serving.server.messages import (
    LENGTH_HEADER,
    VERSION,
    BadRequestError,
    InferRequest,
    RequestTooLargeError,
)
from hyperformer.serving.server.metrics import UNKNOWN, Metrics
from hyperformer.serving.server.registry import Registry
from hyperformer.serving.server.settings import ServerSettings

DRAIN_FACTOR = 16
"""A body of up to this multiple of its limit is read and dropped; beyond it, the connection is closed."""
CLIENT_CLOSED_REQUEST = 499
"""Status that nginx logs if the client has disconnected."""
SHORT_BODY = 64 << 10
"""Maximum size of a short body, in bytes; a body of this size takes about a millisecond to parse."""
SHORT_RESPONSE = 4096
"""Maximum number of probabilities in a short response; this number takes about a millisecond to serialize."""
CLOSE_SECONDS = 0.5
"""Time to send status 503 to requests that are still pending at shutdown, in seconds."""
OCTET_STREAM = "application/octet-stream"
JSON = "application/json"

T = TypeVar("T")


class TaskNotFoundError(HyperFormerError):
    """The task or its version does not exist, or the task is not ready."""


STATUS_CODES: dict[type[HyperFormerError], int] = {
    BadRequestError: 400,
    TaskNotFoundError: 404,
    RequestTooLargeError: 413,
    QueueFullError: 429,
    ModelError: 500,
    ShutdownError: 503,
}


def find_bundle(registry: Registry, name: str, number: str) -> Bundle:
    """Return the bundle of a task.

    Raises:
        TaskNotFoundError: the task or its version does not exist, or the task is not ready.
    """
    bundle = registry[name]
    if bundle is None:
        index = registry.index()
        reason = index[name][1] if name in index else f"unknown task {name!r:.100}; expected one of {', '.join(index)}"
        raise TaskNotFoundError(reason)
    if number != VERSION:
        raise TaskNotFoundError(f"task {name!r} has no version {number!r:.20}; expected {VERSION}")
    return bundle


@dataclass(frozen=True)
class ParsedRequest:
    """A valid request, the source texts of its rows, and the cost of each text."""

    request: InferRequest
    sources: Sequence[Source]
    costs: Sequence[int]


class Inference:
    """The inference route, from the first byte of a body to the response."""

    def __init__(self, settings: ServerSettings, registry: Registry, batcher: Batcher, metrics: Metrics) -> None:
        self.settings, self.registry, self.batcher, self.metrics = settings, registry, batcher, metrics
        self._short, self._long = (ThreadPoolExecutor(1, f"{length} requests") for length in ("short", "long"))
        self._tasks: set[asyncio.Task[object]] = set()

    async def infer(self, request: Request, name: str, number: str = VERSION) -> Response:
        """Predict the answers of rows with a task."""
        start = time.monotonic()
        status = 500
        known = self.registry[name] is not None
        self._track(asyncio.current_task())
        try:
            response = await self._respond(request, name, number)
            status = 200
            self.metrics.seconds.labels(name).observe(time.monotonic() - start)
            return response
        except HyperFormerError as error:
            status = STATUS_CODES.get(type(error), 400)
            raise
        except HTTPException as error:
            status = error.status_code
            raise
        except ClientDisconnect:
            status = CLIENT_CLOSED_REQUEST
            raise
        except asyncio.CancelledError:  # the time limit of the shutdown is over
            status = STATUS_CODES[ShutdownError]
            raise ShutdownError("the server shut down before it could respond. Use another server.") from None
        finally:
            self.metrics.requests.labels(name if known else UNKNOWN, status).inc()

    async def close(self) -> None:
        """Wait at most `CLOSE_SECONDS` until pending requests have got status 503, and end the threads."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for executor in (self._short, self._long):
            executor.shutdown(wait=False, cancel_futures=True)

    def _track(self, task: asyncio.Task[object] | None) -> None:
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _respond(self, request: Request, name: str, number: str) -> Response:
        bundle = find_bundle(self.registry, name, number)
        body = await read_body(request, self.settings.body_bytes)
        json_length = request.headers.get(LENGTH_HEADER)
        parsed = await self._run_in_thread(len(body) <= SHORT_BODY, lambda: self._parse(bundle, body, json_length))
        future = self.batcher.submit(bundle, parsed.sources, request.client, parsed.costs)
        answers = await wait_for_answers(request, future)
        self.metrics.rows.labels(name).inc(len(answers))
        self.metrics.truncated.labels(name).inc(sum(answer.truncated for answer in answers))
        content, length = await self._run_in_thread(
            len(answers) * len(bundle.manifest.labels) <= SHORT_RESPONSE,
            lambda: responses.encode_response(name, parsed.request, answers, bundle.manifest),
        )
        if length is None:
            return Response(content, media_type=JSON)
        return Response(content, media_type=OCTET_STREAM, headers={LENGTH_HEADER: str(length)})

    async def _run_in_thread(self, short: bool, work: Callable[[], T]) -> T:
        """Run a function in the thread for short or for long bodies."""
        return await asyncio.get_running_loop().run_in_executor(self._short if short else self._long, work)

    def _parse(self, bundle: Bundle, body: bytes, json_length: str | None) -> ParsedRequest:
        """Parse a body, validate it against the task and the limits, cheap checks first, and render its rows."""
        columns, max_rows = text.find_columns(bundle.manifest.text), self.settings.rows
        request, tensors = requests.parse_request(body, json_length, max_rows * len(columns))
        requests.check_outputs(request, bundle.manifest)
        rows = requests.extract_rows(request, tensors, columns, max_rows, bundle.manifest.missing)
        check_texts(rows, self.settings.text_bytes)
        sources = [bundle.source(row) for row in rows]
        max_tokens = bundle.manifest.max_source_tokens
        return ParsedRequest(request, sources, [estimate_cost(source, max_tokens) for source in sources])


def check_texts(rows: Sequence[Mapping[str, str]], max_bytes: int) -> None:
    """Refuse a request that has no rows, or a text beyond the limit.

    Raises:
        BadRequestError: there are no rows.
        RequestTooLargeError: a text has more than `max_bytes` bytes in UTF-8.
    """
    if not rows:
        raise BadRequestError("the request contains no rows; expected at least one")
    size = max(len(value.encode(errors="replace")) for row in rows for value in row.values())
    if size > max_bytes:
        raise RequestTooLargeError(f"a text has {size} bytes; expected at most {max_bytes}. Shorten the text.")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request.

    Raises:
        RequestTooLargeError: the body has more than `max_bytes` bytes.
        HTTPException: the body is compressed, or so large that the connection is closed.
    """
    encoding = request.headers.get("Content-Encoding", "")
    if encoding.lower() not in ("", "identity"):
        raise HTTPException(415, f"the Content-Encoding is {encoding!r:.20}; expected none. Send it uncompressed.")
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            body += chunk
        elif size > DRAIN_FACTOR * max_bytes:
            message = f"the request body has more than {size} bytes; expected at most {max_bytes}"
            raise HTTPException(413, message, {"Connection": "close"})
    if size > max_bytes:  # only after the whole body, as many clients read no response while they send
        raise RequestTooLargeError(f"the request body has more than {max_bytes} bytes. Send fewer rows per request.")
    return bytes(body)


async def wait_for_answers(request: Request, future: Future[list[Answer]]) -> list[Answer]:
    """Wait for the answers of a request and return them.

    Raises:
        ClientDisconnect: the client has disconnected; the batcher drops the request's queued rows.
    """
    answers = asyncio.wrap_future(future)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        either: set[asyncio.Future[Any]] = {answers, disconnect}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise ClientDisconnect
        return answers.result()
    finally:
        disconnect.cancel()
        answers.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
