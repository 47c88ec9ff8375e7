"""The server: routes, limits, and its life from opening the tasks to the last answer."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hyperformer import text
from hyperformer.runtime import Bundle
from hyperformer.server import protocol
from hyperformer.server.batching import Batcher, Closing, QueueFull
from hyperformer.server.connections import LimitedProtocol
from hyperformer.server.hosts import HostCheck
from hyperformer.server.metrics import Metrics
from hyperformer.server.page import page
from hyperformer.server.protocol import VERSION, InferRequest, InferResponse, ModelMetadata
from hyperformer.server.registry import Registry
from hyperformer.server.settings import ServerSettings
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

EXTENSIONS = ["binary_tensor_data"]  # not model_repository: its index is served, but the folder decides what is loaded
PATIENCE = 16
"""So many times what a body may have is read, and dropped, before the connection is."""
BACKLOG = 2048  # connections that wait to be taken
GONE = 499  # who asked went away, as nginx counts it
OCTETS, JSON = "application/octet-stream", "application/json"


class Fault(BaseModel):
    """What is wrong with a request."""

    error: str


class Live(BaseModel):
    """The server is there."""

    live: bool


class Ready(BaseModel):
    """What was asked for can answer."""

    ready: bool


class ServerMetadata(BaseModel):
    """Which server, and what it can beyond the protocol."""

    name: str
    version: str
    extensions: list[str]


class IndexEntry(BaseModel):
    """A task of the folder, and whether it can answer."""

    name: str
    version: str
    state: str
    reason: str


class TooLarge(HyperFormerError):
    """A body, or a number of rows, beyond the limit."""


class Unknown(HyperFormerError):
    """No such task, or none that can answer."""


STATUS: dict[type[HyperFormerError], int] = {
    protocol.BadRequest: 400,
    Unknown: 404,
    TooLarge: 413,
    QueueFull: 429,
    Closing: 503,
}


def faults(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of statuses."""
    return {code: {"model": Fault} for code in codes}


def application(settings: ServerSettings) -> FastAPI:
    """The server of a folder of tasks, with its tasks open.

    Raises:
        HyperFormerError: the folder holds no task that can be opened.
    """
    registry = Registry(
        settings.root,
        settings.threads,
        settings.precision,
        lambda name, good: metrics.reloads.labels(name, "opened" if good else "failed").inc(),
    )
    metrics = Metrics(lambda: batcher.rows)
    batcher = Batcher(settings.batch, settings.queue, metrics.batches.observe)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()
        looking = threading.Thread(target=_look, args=(registry, settings.poll_seconds, ended), daemon=True)
        looking.start()
        yield
        ended.set()
        await asyncio.to_thread(batcher.close)
        log.info("stopped after %d requests", metrics.asked())

    app = FastAPI(
        title="HyperFormer",
        version=version("hyperformer"),
        summary="Tasks behind the Open Inference Protocol, version 2",
        lifespan=life,
        docs_url=None,  # its pages come from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # its redirects hold the request's Host
    )
    app.add_middleware(HostCheck, host=settings.host, names=settings.allowed_hosts)
    app.state.registry, app.state.batcher = registry, batcher
    app.openapi = lambda: described(app, registry)  # type: ignore[method-assign]
    _faults(app)
    _about(app, registry)
    inference = Inference(settings, registry, batcher, metrics)
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{number}/infer"):
        app.add_api_route(path, inference.infer, **INFER)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def prometheus() -> Response:
        """What the server counts, for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    html, headers = page()

    @app.get("/", include_in_schema=False)
    def tried() -> Response:
        """The page to try the tasks."""
        return HTMLResponse(html, headers=headers)

    return app


def described(app: FastAPI, registry: Registry) -> dict[str, Any]:
    """OpenAPI of the routes, with the tasks of now as the names that there are."""
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    _, requests = models_json_schema([(InferRequest, "validation")], ref_template="#/components/schemas/{model}")
    found["components"]["schemas"] |= requests["$defs"]
    names = {"name": [name for name, (bundle, _) in registry.index().items() if bundle], "number": [VERSION]}
    for path in found["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                parameter["schema"]["enum"] = names[parameter["name"]]
    return found


def _look(registry: Registry, seconds: float, ended: threading.Event) -> None:
    while seconds and not ended.wait(seconds):
        try:
            registry.refresh()
        except Exception:
            log.exception("the folder %s could not be looked at", registry.root)


def _faults(app: FastAPI) -> None:
    """Every fault is `{"error": "…"}`."""

    @app.exception_handler(HyperFormerError)
    def said(_: Request, error: HyperFormerError) -> Response:
        headers = {"Retry-After": str(error.seconds)} if isinstance(error, QueueFull) else None
        return JSONResponse({"error": str(error)}, STATUS.get(type(error), 400), headers)

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"}, 400)

    @app.exception_handler(ClientDisconnect)
    def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=GONE)  # nobody reads it

    @app.exception_handler(Exception)
    def unexpected(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "the server failed; its log says why"}, 500)


def _about(app: FastAPI, registry: Registry) -> None:
    """What says what there is, and whether it can answer."""

    @app.get("/v2")
    def server() -> ServerMetadata:
        """Which server this is."""
        return ServerMetadata(name="hyperformer", version=version("hyperformer"), extensions=EXTENSIONS)

    @app.get("/v2/health/live")
    def live() -> Live:
        """Is the server there?"""
        return Live(live=True)

    @app.get("/v2/health/ready", responses=faults(503))
    def ready() -> Ready:
        """Can the server answer for any task?"""
        if not any(bundle for bundle, _ in registry.index().values()):
            raise HTTPException(503, "no task can answer; POST /v2/repository/index says why")
        return Ready(ready=True)

    @app.post("/v2/repository/index")
    def index() -> list[IndexEntry]:
        """Every task of the folder."""
        return [
            IndexEntry(name=name, version=VERSION, state="READY" if bundle else "UNAVAILABLE", reason=reason)
            for name, (bundle, reason) in registry.index().items()
        ]

    @app.get("/v2/models/{name}", responses=faults(404))
    @app.get("/v2/models/{name}/versions/{number}", responses=faults(404))
    def model(name: str, number: str = VERSION) -> ModelMetadata:
        """What a task takes and gives."""
        return protocol.metadata(name, _bundle(registry, name, number).manifest)

    @app.get("/v2/models/{name}/ready", responses=faults(404))
    @app.get("/v2/models/{name}/versions/{number}/ready", responses=faults(404))
    def model_ready(name: str, number: str = VERSION) -> Ready:
        """Can a task answer?"""
        _bundle(registry, name, number)
        return Ready(ready=True)


def _bundle(registry: Registry, name: str, number: str) -> Bundle:
    found = registry[name]
    if found is None:
        index = registry.index()
        reason = index[name][1] if name in index else f"unknown task {name!r:.100}; there are {', '.join(index)}"
        raise Unknown(reason)
    if number != VERSION:
        raise Unknown(f"the task {name!r} has no version {number!r:.20}; take {VERSION}")
    return found


INFER: dict[str, Any] = {
    "methods": ["POST"],
    "response_model": InferResponse,
    "responses": {**faults(400, 404, 413, 415, 429, 503), 200: {"content": {OCTETS: {}}}},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"$ref": "#/components/schemas/InferRequest"}},
                OCTETS: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}


class Inference:
    """Requests for answers: read, checked against task and limits, answered in batches, and counted."""

    def __init__(self, settings: ServerSettings, registry: Registry, batcher: Batcher, metrics: Metrics) -> None:
        self.settings, self.registry, self.batcher, self.metrics = settings, registry, batcher, metrics

    async def infer(self, request: Request, name: str, number: str = VERSION) -> Response:
        """The answers to rows."""
        began = time.monotonic()
        status = 500
        known = self.registry[name] is not None
        try:
            found = await self._answered(request, name, number)
            status = 200
            self.metrics.seconds.labels(name).observe(time.monotonic() - began)
            return found
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

    async def _answered(self, request: Request, name: str, number: str) -> Response:
        bundle = _bundle(self.registry, name, number)
        body = await _body(request, self.settings.body_bytes)
        asked, tensors = protocol.parsed(body, request.headers.get(protocol.HEADER))
        protocol.check_outputs(asked, bundle.manifest)
        rows = protocol.rows_of(asked, tensors, text.columns(bundle.manifest.text))
        self._check(rows)
        answers = await asyncio.wrap_future(self.batcher.ask(bundle, [bundle.source(row) for row in rows]))
        self.metrics.rows.labels(name).inc(len(rows))
        self.metrics.truncated.labels(name).inc(sum(answer.truncated for answer in answers))
        content, length = protocol.response(name, asked, answers, bundle.manifest)
        if length is None:
            return Response(content, media_type=JSON)
        return Response(content, media_type=OCTETS, headers={protocol.HEADER: str(length)})

    def _check(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Sees to it that rows are within the limits."""
        most, longest = self.settings.rows, self.settings.text_bytes
        if not rows:
            raise protocol.BadRequest("the request holds no row, expected at least one")
        if len(rows) > most:
            raise TooLarge(f"the request holds {len(rows)} rows, expected at most {most}; send several requests")
        found = max(len(value.encode(errors="replace")) for row in rows for value in row.values())
        if found > longest:
            raise TooLarge(f"a text has {found} bytes, expected at most {longest}; send less of it")


async def _body(request: Request, most: int) -> bytes:
    """A request's body.

    Raises:
        TooLarge: it is larger than it may be.
        HTTPException: it is compressed.
    """
    coding = request.headers.get("Content-Encoding", "")
    if coding.lower() not in ("", "identity"):
        raise HTTPException(415, f"the body is encoded with {coding!r:.20}, expected none")
    found, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            found += part
        elif size > PATIENCE * most:
            raise HTTPException(413, f"the body has more than {size} bytes", {"Connection": "close"})
    if size > most:  # only now: who still sends does not read yet
        raise TooLarge(f"the body has more than {most} bytes; send fewer rows a request")
    return bytes(found)


def run(settings: ServerSettings) -> None:
    """Serves until it is told to stop; then accepted requests are answered.

    Raises:
        HyperFormerError: the folder holds no task that can be opened, or the port is taken.
    """
    bound = _bound(settings.host, settings.port)
    with bound:
        app = application(settings)
        config = configuration(app, settings)
        host, port = bound.getsockname()[:2]
        names = [name for name, (bundle, _) in app.state.registry.index().items() if bundle]
        said = f"{len(names)} tasks at http://{host}:{port}/v2: {', '.join(names)}"
        try:
            _Server(config, said).run(sockets=[bound])
        finally:
            app.state.batcher.close(drop=True)  # nothing, after an end in good order


def configuration(app: FastAPI, settings: ServerSettings, **more: Any) -> uvicorn.Config:
    """How uvicorn serves it."""
    return uvicorn.Config(
        app,
        http=partial(LimitedProtocol, idle=OrderedDict()),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
        **more,
    )


class _Server(uvicorn.Server):
    """Says where it is once it listens."""

    def __init__(self, config: uvicorn.Config, said: str) -> None:
        super().__init__(config)
        self._said = said

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info(self._said)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; who connects early waits until the tasks are open.

    Raises:
        HyperFormerError: the address is taken, or none of this machine's.
    """
    found = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, number)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)  # now: an address that is only bound can be bound again
    except (OSError, UnicodeError) as error:
        if found:
            found.close()
        reason = getattr(error, "strerror", None) or error
        raise HyperFormerError(
            f"{host}:{port} cannot be listened at ({reason}); take another address or port"
        ) from None
    return found
