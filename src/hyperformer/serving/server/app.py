"""The FastAPI application: its routes, error responses, and startup and shutdown."""

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

from hyperformer.core.errors import HyperFormerError
from hyperformer.serving.server.batching import Batcher, QueueFullError
from hyperformer.serving.server.connections import LimitedProtocol
from hyperformer.serving.server.hosts import HostCheck
from hyperformer.serving.server.inference import (
    CLIENT_CLOSED_REQUEST,
    JSON,
    OCTET_STREAM,
    STATUS_CODES,
    Inference,
    find_bundle,
)
from hyperformer.serving.server.messages import VERSION, InferRequest, InferResponse, ModelMetadata, describe_task
from hyperformer.serving.server.metrics import Metrics
from hyperformer.serving.server.page import load_page
from hyperformer.serving.server.registry import Registry
from hyperformer.serving.server.settings import ServerSettings

log = logging.getLogger(__name__)

EXTENSIONS = ["binary_tensor_data"]
"""Supported extensions of the protocol; `model_repository` is unsupported, as clients cannot load or unload tasks."""


class ErrorResponse(BaseModel):
    """The body of an error response."""

    error: str


class LiveResponse(BaseModel):
    """Liveness of the server."""

    live: bool


class ReadyResponse(BaseModel):
    """Readiness of the server or of a task."""

    ready: bool


class ServerMetadata(BaseModel):
    """Name, version and protocol extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class IndexEntry(BaseModel):
    """State of a task in the folder; `reason` is the error of its files, or empty."""

    name: str
    version: str
    state: str
    reason: str


def describe_errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of the responses with these error status codes."""
    return {code: {"model": ErrorResponse} for code in codes}


def create_app(settings: ServerSettings) -> FastAPI:
    """Create the application, and load the tasks of the folder in `settings`.

    Raises:
        HyperFormerError: no task of the folder can be loaded, or its shared base cannot.
    """
    registry = Registry(
        settings.root,
        settings.threads,
        settings.precision,
        lambda name, loaded: metrics.reloads.labels(name, "opened" if loaded else "failed").inc(),
        settings.allow_unpublished,
        settings.provider,
    )
    metrics = Metrics(lambda: batcher.queued_rows)
    batcher = Batcher(settings.batch, settings.queue, metrics.batches.observe)
    inference = Inference(settings, registry, batcher, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stopped = threading.Event()
        poller = threading.Thread(target=_poll, args=(registry, settings.poll_seconds, stopped), daemon=True)
        poller.start()
        yield
        stopped.set()
        await inference.close()
        batcher.close(drop=True, timeout=0)
        log.info("stopped after %d requests", metrics.count_requests())

    app = FastAPI(
        title="HyperFormer",
        version=version("hyperformer"),
        summary="Serve tasks with the Open Inference Protocol, version 2",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,  # redirects would contain the Host header of the request
    )
    app.add_middleware(HostCheck, host=settings.host, names=settings.allowed_hosts)
    app.state.registry, app.state.batcher = registry, batcher
    app.openapi = lambda: build_openapi(app, registry)  # type: ignore[method-assign]
    _add_error_handlers(app)
    _add_metadata_routes(app, registry)
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{number}/infer"):
        app.add_api_route(path, inference.infer, **INFER_ROUTE)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def get_metrics() -> Response:
        """Return the metrics of the server for Prometheus."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    html, headers = load_page()

    @app.get("/", include_in_schema=False)
    def get_page() -> Response:
        """Return the page to try tasks."""
        return HTMLResponse(html, headers=headers)

    return app


def build_openapi(app: FastAPI, registry: Registry) -> dict[str, Any]:
    """Return the OpenAPI document of the routes, with the names of the tasks that are ready."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    _, requests = models_json_schema([(InferRequest, "validation")], ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= requests["$defs"]
    names = {"name": [name for name, (bundle, _) in registry.index().items() if bundle], "number": [VERSION]}
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                parameter["schema"]["enum"] = names[parameter["name"]]
    return document


def _poll(registry: Registry, seconds: float, stopped: threading.Event) -> None:
    while seconds and not stopped.wait(seconds):
        try:
            registry.refresh()
        except Exception:
            log.exception("cannot check the folder %s for changed tasks", registry.root)


def _add_error_handlers(app: FastAPI) -> None:
    """Make the application respond with `{"error": "…"}` to every error except a disconnect."""

    @app.exception_handler(HyperFormerError)
    def answer_project_error(_: Request, error: HyperFormerError) -> Response:
        headers = {"Retry-After": str(error.seconds)} if isinstance(error, QueueFullError) else None
        return JSONResponse({"error": str(error)}, STATUS_CODES.get(type(error), 400), headers)

    @app.exception_handler(HTTPException)
    def answer_http_error(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def answer_invalid_request(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 400)

    @app.exception_handler(ClientDisconnect)
    def answer_disconnect(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # no client reads it

    @app.exception_handler(Exception)
    def answer_unexpected_error(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "internal server error; see the log of the server"}, 500)


def _add_metadata_routes(app: FastAPI, registry: Registry) -> None:
    """Add the routes for metadata and health of the server and its tasks."""

    @app.get("/v2")
    def get_server_metadata() -> ServerMetadata:
        """Return the name, version and extensions of the server."""
        return ServerMetadata(name="hyperformer", version=version("hyperformer"), extensions=EXTENSIONS)

    @app.get("/v2/health/live")
    def is_server_live() -> LiveResponse:
        """Return that the server is live, because it responds."""
        return LiveResponse(live=True)

    @app.get("/v2/health/ready", responses=describe_errors(503))
    def is_server_ready() -> ReadyResponse:
        """Return that at least one task is ready; respond with status 503 if no task is."""
        if not any(bundle for bundle, _ in registry.index().values()):
            raise HTTPException(503, "no task is ready; POST /v2/repository/index returns the reasons")
        return ReadyResponse(ready=True)

    @app.post("/v2/repository/index")
    def get_repository_index() -> list[IndexEntry]:
        """Return all tasks of the folder and their states."""
        return [
            IndexEntry(name=name, version=VERSION, state="READY" if bundle else "UNAVAILABLE", reason=reason)
            for name, (bundle, reason) in registry.index().items()
        ]

    @app.get("/v2/models/{name}", responses=describe_errors(404))
    @app.get("/v2/models/{name}/versions/{number}", responses=describe_errors(404))
    def get_model_metadata(name: str, number: str = VERSION) -> ModelMetadata:
        """Return the inputs, outputs and parameters of a task, such as its labels."""
        return describe_task(name, find_bundle(registry, name, number).manifest)

    @app.get("/v2/models/{name}/ready", responses=describe_errors(404))
    @app.get("/v2/models/{name}/versions/{number}/ready", responses=describe_errors(404))
    def is_model_ready(name: str, number: str = VERSION) -> ReadyResponse:
        """Return that a task is ready; respond with status 404 if it is not."""
        find_bundle(registry, name, number)
        return ReadyResponse(ready=True)


INFER_ROUTE: dict[str, Any] = {
    "methods": ["POST"],
    "response_model": InferResponse,
    "responses": {**describe_errors(400, 404, 413, 415, 429, 503), 200: {"content": {OCTET_STREAM: {}}}},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"$ref": "#/components/schemas/InferRequest"}},
                OCTET_STREAM: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}


def configure_uvicorn(app: FastAPI, settings: ServerSettings, **options: Any) -> uvicorn.Config:
    """Return the configuration of uvicorn for the application; `options` are further options of uvicorn."""
    return uvicorn.Config(
        app,
        http=partial(LimitedProtocol, idle=OrderedDict()),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
        **options,
    )
