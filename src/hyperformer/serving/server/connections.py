"""Limits of connections: the time of each step of a request, and the number of open connections."""

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

from hyperformer.serving.server.hosts import is_probe

SECONDS = {"header": 10.0, "body": 60.0, "response": 60.0}
"""Time limits for a client to send a header, to send a body, and to read a response, in seconds."""
MAX_CONNECTIONS = 2048
CONNECTION_SHARE = 0.75
"""Share of the process's file descriptors for connections; models and other files need the rest."""
RETRY_SECONDS = 1
"""Value of Retry-After, in seconds."""
REQUEST_TIMEOUT = 408
TOO_MANY_REQUESTS = 429


def connection_limit() -> int:
    """Return the maximum number of open connections, from the limit of file descriptors (`ulimit -n`)."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(2, min(MAX_CONNECTIONS, int(CONNECTION_SHARE * descriptors)))


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with limits that keep the server reachable for health checks.

    A connection is idle while it waits for its client, and is closed when the current step takes too long. A new
    connection beyond the limit closes the connection that has been idle longest. At most half of the maximum number of
    connections may wait for a response; further requests, except health checks and metrics, get status 429.

    Args:
        idle: the server's idle connections, starting with the longest idle; shared by all connections.
        arguments: positional arguments of uvicorn's protocol.
        options: keyword arguments of uvicorn's protocol.
    """

    def __init__(self, *arguments: Any, idle: OrderedDict[LimitedProtocol, None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._application, self.app = self.app, self._limit_requests
        self._idle = idle
        self._step: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; beyond the limit, close the connection that has been idle longest."""
        super().connection_made(transport)
        if len(self.connections) > connection_limit() and self._idle:
            next(iter(self._idle))._abort()
        self._update_step()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release a closed connection."""
        super().connection_lost(exc)
        self._start_step(None)

    def handle_events(self) -> None:
        """Handle received data, and update the time limit."""
        super().handle_events()
        self._update_step()

    def on_response_complete(self) -> None:
        """Finish a response, and update the time limit."""
        super().on_response_complete()
        self._update_step()

    def pause_writing(self) -> None:
        """Pause writing to a full buffer, and update the time limit."""
        super().pause_writing()
        self._update_step()

    def resume_writing(self) -> None:
        """Resume writing, and update the time limit."""
        super().resume_writing()
        self._update_step()

    def _update_step(self) -> None:
        """Start the time limit of a new step, if the step has changed."""
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
            self._start_step(step)

    def _start_step(self, step: str | None) -> None:
        """Start a step of the client; None is a step of the server, which has no time limit here."""
        if self._timer is not None:
            self._timer.cancel()
        self._idle.pop(self, None)
        self._step, self._timer = step, None
        if step is not None:
            self._idle[self] = None
            self._timer = self.loop.call_later(SECONDS[step], self._expire)

    def _abort(self) -> None:
        """Close the connection immediately; the event loop calls `connection_lost` later."""
        self.connections.discard(self)
        self._start_step(None)
        self.transport.abort()

    def _expire(self) -> None:
        if self._step == "body" and self.conn.our_state is h11.SEND_RESPONSE:
            self._send_timeout()
        else:
            self._abort()

    def _send_timeout(self) -> None:
        """Respond with status 408 to a request whose body did not arrive; its handler receives a disconnect."""
        message = f"the request body did not arrive within {SECONDS['body']:g} s. Send a smaller body."
        headers = [("content-type", "application/json"), ("connection", "close")]
        body = json.dumps({"error": message}).encode()
        for event in (
            h11.Response(status_code=REQUEST_TIMEOUT, headers=headers, reason=b"Request Timeout"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self.transport.close()
        self._update_step()

    async def _limit_requests(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or respond with status 429 if too many requests wait."""
        waiting = len(self.connections) - len(self._idle) - (self not in self._idle)
        if waiting < connection_limit() // 2 or is_probe(scope["path"]):
            await self._application(scope, receive, send)
            return
        message = f"too many requests are waiting ({waiting}). Retry in {RETRY_SECONDS} s."
        headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
        await JSONResponse({"error": message}, TOO_MANY_REQUESTS, headers)(scope, receive, send)
