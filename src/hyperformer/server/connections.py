"""Limits of connections: how long each step of a request may take, and how many connections there may be."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import OrderedDict
from typing import Any

import h11
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from hyperformer.server.hosts import is_probe

SECONDS = {"header": 10.0, "body": 60.0, "response": 60.0}
"""Seconds in which a client has to send a header, to send a body, and to read what waits to be sent."""
MOST_CONNECTIONS = 2048
SHARE = 0.75
"""Of the file descriptors that the process may have, those for connections; models and files need the rest."""
RETRY_SECONDS = 1
TIMEOUT = 408
TOO_MANY = 429


def connection_limit() -> int:
    """Compute how many connections may be open, from the limit of file descriptors (`ulimit -n`)."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(2, min(MOST_CONNECTIONS, int(SHARE * descriptors)))


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with limits that keep room for health checks.

    A connection whose client keeps it waiting is idle, and closed when its step takes too long. A new connection beyond
    the limit closes the one that has been idle longest. At most half of the limit may wait for an answer; further
    requests are answered 429, other than health checks.

    Args:
        idle: the idle connections of the server, longest first.
        arguments, options: of uvicorn.
    """

    def __init__(self, *arguments: Any, idle: OrderedDict[LimitedProtocol, None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._application, self.app = self.app, self._admit
        self._idle = idle
        self._step: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > connection_limit() and self._idle:
            next(iter(self._idle))._drop()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._start(None)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        """Start the time limit of a step where one begins."""
        if self not in self.connections:
            return
        step = None
        if self.flow.write_paused or self.transport.is_closing():
            step = "response"
        elif self.conn.their_state is h11.IDLE:
            step = "header"
        elif self.conn.their_state is h11.SEND_BODY:
            step = "body"
        if step != self._step:
            self._start(step)

    def _start(self, step: str | None) -> None:
        """Start a step; None is the server's, who has no time limit here."""
        if self._timer is not None:
            self._timer.cancel()
        self._idle.pop(self, None)
        self._step, self._timer = step, None
        if step is not None:
            self._idle[self] = None
            self._timer = self.loop.call_later(SECONDS[step], self._expire)

    def _drop(self) -> None:
        """Close the connection at once; the event loop reports its loss later."""
        self.connections.discard(self)
        self._start(None)
        self.transport.abort()

    def _expire(self) -> None:
        if self._step == "body" and self.conn.our_state is h11.SEND_RESPONSE:
            self._send_timeout()
        else:
            self._drop()

    def _send_timeout(self) -> None:
        """Answer a request whose body does not come; its handler learns that the client is gone."""
        message = f"the body did not come within {SECONDS['body']:g} s; send less of it, or faster"
        headers = [("content-type", "application/json"), ("connection", "close")]
        body = json.dumps({"error": message}).encode()
        for event in (
            h11.Response(status_code=TIMEOUT, headers=headers, reason=b"Request Timeout"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self.transport.close()
        self._watch()

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, unless too many wait for an answer."""
        waiting = len(self.connections) - len(self._idle) - (self not in self._idle)
        if waiting < connection_limit() // 2 or is_probe(scope["path"]):
            await self._application(scope, receive, send)
            return
        message = f"{waiting} requests wait for an answer, and no more may; send it again in {RETRY_SECONDS} s"
        headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
        await JSONResponse({"error": message}, TOO_MANY, headers)(scope, receive, send)
