"""All tasks of a folder behind the Open Inference Protocol, version 2, over HTTP; needs the extra `serve`."""

from __future__ import annotations

from hyperformer.server.lifecycle import run
from hyperformer.server.settings import ServerSettings

__all__ = ["ServerSettings", "run"]
