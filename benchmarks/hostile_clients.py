"""Clients that ask a server for all that they may, or never ask; `serving.py` measures what others lose."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

ROWS, TEXT_BYTES, BODY_BYTES = 256, 64 << 10, 4 << 20  # limits of a request, by default
EXPANDED = "\ufdfa"  # three bytes, and eighteen characters to a tokenizer that normalises
EMPTY_STRINGS = 800_000
PIPELINED = 8  # requests that are sent before the first answer is read
SILENT = 50  # connections of a silent client
PAUSE = 1.0  # seconds between two bytes of a slow one

Rows = list[dict[str, str]]


def infer_body(rows: Rows) -> bytes:
    """Write a request of rows."""
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": "BYTES", "data": [row[name] for row in rows]}
        for name in rows[0]
    ]
    return json.dumps({"inputs": inputs}, ensure_ascii=False).encode()


def largest_body(columns: list[str]) -> bytes:
    """Write the largest legal request: as many texts of U+FDFA as a body holds, each as long as it may be."""
    text = EXPANDED * (TEXT_BYTES // len(EXPANDED.encode()))
    count = (BODY_BYTES - 4096) // (len(text.encode()) + 4) // len(columns)
    return infer_body([dict.fromkeys(columns, text)] * min(count, ROWS))


def empty_body(columns: list[str]) -> bytes:
    """Write a body of empty strings, which is refused."""
    return infer_body([dict.fromkeys(columns, "")] * (EMPTY_STRINGS // len(columns)))


def post(connection: http.client.HTTPConnection, task: str, body: bytes) -> tuple[int, bytes]:
    """Ask, and return status and body of the response."""
    connection.request("POST", f"/v2/models/{task}/infer", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.will_close:
        connection.close()
    return response.status, content


def repeat(port: int, task: str, body: bytes, until: float) -> list[float]:
    """Ask the same without a pause, and return the seconds of each request that was answered."""
    seconds, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while (began := time.monotonic()) < until:
        try:
            status, _ = post(connection, task, body)
        except (OSError, http.client.HTTPException):
            connection.close()
            continue
        if status == 200:
            seconds.append(time.monotonic() - began)
    connection.close()
    return seconds


def pipeline(port: int, task: str, body: bytes, until: float) -> None:
    """Send requests before the answers to those before are read."""
    head = f"POST /v2/models/{task}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
            reading = threading.Thread(target=drain, args=(connection,), daemon=True)
            reading.start()
            connection.settimeout(max(0.1, until - time.monotonic()))
            connection.sendall((head.encode() + body) * PIPELINED)
            reading.join(max(0.1, until - time.monotonic()))


def drain(connection: socket.socket) -> None:
    """Read and drop what a server sends."""
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


def stay_silent(port: int, until: float) -> None:
    """Hold connections that send nothing, or a byte of a header now and then."""
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
    """Run hostile clients of all kinds, one kind after the other, each on a task of its turn."""
    until, tasks = time.monotonic() + seconds, list(rows)
    threads = []
    for number in range(clients):
        task = tasks[number // 4 % len(tasks)]
        columns, many = list(rows[task][0]), (rows[task] * ROWS)[:ROWS]
        kinds: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            (repeat, (port, task, largest_body(columns), until)),
            (repeat, (port, task, empty_body(columns), until)),
            (pipeline, (port, task, infer_body(many), until)),
            (stay_silent, (port, until)),
        ]
        work, arguments = kinds[number % 4]
        threads.append(threading.Thread(target=work, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
