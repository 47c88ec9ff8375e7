"""The application: its routes, their faults, and what it starts and ends with."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
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

from hyperformer.server import protocol
from hyperformer.server.batching import Batcher, QueueFull
from hyperformer.server.connections import LimitedProtocol
from hyperformer.server.hosts import HostCheck
from hyperformer.server.inference import GONE, JSON, OCTETS, STATUS, Inference, find_bundle
from hyperformer.server.metrics import Metrics
from hyperformer.server.page import page
from hyperformer.server.protocol import VERSION, InferRequest, InferResponse, ModelMetadata
from hyperformer.server.registry import Registry
from hyperformer.server.settings import ServerSettings
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

EXTENSIONS = ["binary_tensor_data"]  # not model_repository: its index is served, but the folder decides what is loaded


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
    inference = Inference(settings, registry, batcher, metrics)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()
        looking = threading.Thread(target=_look, args=(registry, settings.poll_seconds, ended), daemon=True)
        looking.start()
        yield
        ended.set()
        await inference.close()
        batcher.close(drop=True, seconds=0)
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
        return protocol.metadata(name, find_bundle(registry, name, number).manifest)

    @app.get("/v2/models/{name}/ready", responses=faults(404))
    @app.get("/v2/models/{name}/versions/{number}/ready", responses=faults(404))
    def model_ready(name: str, number: str = VERSION) -> Ready:
        """Can a task answer?"""
        find_bundle(registry, name, number)
        return Ready(ready=True)


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
