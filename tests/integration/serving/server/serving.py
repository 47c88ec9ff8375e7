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

from hyperformer.serving.server import ServerSettings
from hyperformer.serving.server.app import configure_uvicorn, create_app


@dataclass
class Running:
    """A server in a thread of this process."""

    port: int
    app: Any = None
    stop: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Send a request, and return the status, the JSON (or other content) and the headers of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = json.dumps(body).encode() if isinstance(body, dict | list) else body
        with contextlib.closing(connection):
            connection.request(method, path, content, headers or {})
            response = connection.getresponse()
            content = response.read()
        response_headers = dict(response.getheaders())
        is_json = response_headers.get("content-type", "").startswith("application/json")
        return response.status, json.loads(content) if is_json else content, response_headers

    def infer(self, task: str, rows: list[dict[str, str]], **more: Any) -> tuple[int, Any, dict[str, str]]:
        return self.send("POST", f"/v2/models/{task}/infer", {**build_request(rows), **more})


def build_request(rows: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "shape": [len(rows)], "datatype": "BYTES", "data": [row[name] for row in rows]}
            for name in rows[0]
        ]
    }


@contextlib.contextmanager
def running(root: Path, **options: Any) -> Iterator[Running]:
    settings = ServerSettings(root, port=0, **{"threads": 1, **options})
    app = create_app(settings)
    server = uvicorn.Server(configure_uvicorn(app, settings, port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield Running(server.servers[0].sockets[0].getsockname()[1], app, lambda: setattr(server, "should_exit", True))
    finally:
        server.should_exit = True
        thread.join(30)
