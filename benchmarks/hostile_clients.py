"""Hostile clients of four kinds; `serving.py` measures the harm to other clients.

They repeat the largest allowed request, repeat a body that is rejected, pipeline requests, or keep silent connections
open.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

ROWS = 256  # default maximum number of rows in a request
TEXT_BYTES = 64 << 10  # default maximum size of a text
BODY_BYTES = 4 << 20  # default maximum size of a request's body
EXPANDING = "\ufdfa"  # a character of three bytes that a normalizing tokenizer expands to eighteen characters
EMPTY_STRINGS = 800_000  # number of strings in a request of empty strings
PIPELINED = 8  # number of requests sent at once, without waiting for responses
SILENT = 50  # number of connections of a silent client, half of them slow
PAUSE = 1.0  # seconds between two bytes of a slow connection

Rows = list[dict[str, str]]


def infer_body(rows: Rows) -> bytes:
    """Return the body of a request with these rows."""
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": "BYTES", "data": [row[name] for row in rows]}
        for name in rows[0]
    ]
    return json.dumps({"inputs": inputs}, ensure_ascii=False).encode()


def largest_body(columns: list[str]) -> bytes:
    """Return the largest allowed body: as many texts of the maximum size as fit, filled with U+FDFA."""
    text = EXPANDING * (TEXT_BYTES // len(EXPANDING.encode()))
    count = (BODY_BYTES - 4096) // (len(text.encode()) + 4) // len(columns)
    return infer_body([dict.fromkeys(columns, text)] * min(count, ROWS))


def empty_body(columns: list[str]) -> bytes:
    """Return a body with more empty strings than the server accepts in a request."""
    return infer_body([dict.fromkeys(columns, "")] * (EMPTY_STRINGS // len(columns)))


def post(connection: http.client.HTTPConnection, task: str, body: bytes) -> tuple[int, bytes]:
    """Send a request, and return the status and body of the response."""
    connection.request("POST", f"/v2/models/{task}/infer", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.will_close:
        connection.close()
    return response.status, content


def repeat(port: int, task: str, body: bytes, until: float) -> list[float]:
    """Repeat a request without a pause until `until`, and return the seconds of each successful request."""
    seconds, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while (start := time.monotonic()) < until:
        try:
            status, _ = post(connection, task, body)
        except (OSError, http.client.HTTPException):
            connection.close()
            continue
        if status == 200:
            seconds.append(time.monotonic() - start)
    connection.close()
    return seconds


def pipeline(port: int, task: str, body: bytes, until: float) -> None:
    """Send `PIPELINED` requests at once, without waiting for responses; repeat this until `until`."""
    head = f"POST /v2/models/{task}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
            reader = threading.Thread(target=drain, args=(connection,), daemon=True)
            reader.start()
            connection.settimeout(max(0.1, until - time.monotonic()))
            connection.sendall((head.encode() + body) * PIPELINED)
            reader.join(max(0.1, until - time.monotonic()))


def drain(connection: socket.socket) -> None:
    """Read and discard everything that a server sends."""
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


def stay_silent(port: int, until: float) -> None:
    """Keep connections open until `until`; half send nothing, the others a byte every `PAUSE`."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(SILENT):
            with contextlib.suppress(OSError):
                connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
        for connection in connections[::2]:
            with contextlib.suppress(OSError):
                connection.sendall(b"POST /v2/models/a/infer HTTP/1.1\r\nX-Slow: ")
        while time.monotonic() < until:
            time.sleep(PAUSE)
            for connection in connections[::2]:
                with contextlib.suppress(OSError):
                    connection.sendall(b"a")


def attack(port: int, rows: dict[str, Rows], clients: int, seconds: float) -> None:
    """Run hostile clients, cycling through their kinds and the tasks.

    Args:
        port: The server's port.
        rows: Rows of each task.
        clients: The number of clients.
        seconds: The time to run.
    """
    until, tasks = time.monotonic() + seconds, list(rows)
    threads = []
    for number in range(clients):
        task = tasks[number // 4 % len(tasks)]
        columns, full = list(rows[task][0]), (rows[task] * ROWS)[:ROWS]
        kinds: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            (repeat, (port, task, largest_body(columns), until)),
            (repeat, (port, task, empty_body(columns), until)),
            (pipeline, (port, task, infer_body(full), until)),
            (stay_silent, (port, until)),
        ]
        target, arguments = kinds[number % 4]
        threads.append(threading.Thread(target=target, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
