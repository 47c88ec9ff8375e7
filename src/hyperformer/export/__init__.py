"""Bakes tasks into graphs and checks them. A new target is one file here and one line in `TARGETS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hyperformer.backbones import Backbone
from hyperformer.config import ExportSettings
from hyperformer.export import classifier
from hyperformer.tasks import Task

Target = Callable[[Backbone, Task, ExportSettings, Path], None]
TARGETS: dict[str, Target] = {"classification": classifier.write, "regression": classifier.write}
"""Which target each task kind is exported to."""
