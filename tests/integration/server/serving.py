"""Run a server of a folder of bundles in a thread of this process."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from hyperformer.server import ServerSettings
from hyperformer.server.app import application, configuration


@dataclass
class Running:
    """A server in a thread of this process."""

    port: int
    app: Any = None
    stop: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or the text) and headers of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = json.dumps(body).encode() if isinstance(body, dict | list) else body
        with contextlib.closing(connection):
            connection.request(method, path, given, headers or {})
            found = connection.getresponse()
            content = found.read()
        told = dict(found.getheaders())
        as_json = told.get("content-type", "").startswith("application/json")
        return found.status, json.loads(content) if as_json else content, told

    def infer(self, task: str, rows: list[dict[str, str]], **more: Any) -> tuple[int, Any, dict[str, str]]:
        return self.ask("POST", f"/v2/models/{task}/infer", {**request_of(rows), **more})


def request_of(rows: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "shape": [len(rows)], "datatype": "BYTES", "data": [row[name] for row in rows]}
            for name in rows[0]
        ]
    }


@contextlib.contextmanager
def running(root: Path, **given: Any) -> Iterator[Running]:
    settings = ServerSettings(root, port=0, **{"threads": 1, **given})
    app = application(settings)
    server = uvicorn.Server(configuration(app, settings, port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield Running(server.servers[0].sockets[0].getsockname()[1], app, lambda: setattr(server, "should_exit", True))
    finally:
        server.should_exit = True
        thread.join(30)
