"""HTTP server for a folder of tasks (Open Inference Protocol, version 2); requires the extra `serve`."""

from __future__ import annotations

from hyperformer.serving.server.lifecycle import run
from hyperformer.serving.server.settings import ServerSettings

__all__ = ["ServerSettings", "run"]
