"""HyperFormer: many tasks on one frozen backbone, with adapters from a shared hypernetwork and export to ONNX.

Importing this package imports neither PyTorch nor ONNX Runtime; both are imported when a name needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hyperformer.core.cpus import limit_spinning
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer

if TYPE_CHECKING:
    from hyperformer.model.multi_task import MultiTaskModel
    from hyperformer.model.task_models import TaskModels
    from hyperformer.runtime import Bundle, load
    from hyperformer.workflow import export_bundles, train

    __version__: str

limit_spinning()  # here, because it must come before the first import of PyTorch

_LAZY = {
    "Bundle": "hyperformer.runtime",
    "MultiTaskModel": "hyperformer.model.multi_task",
    "TaskModels": "hyperformer.model.task_models",
    "export_bundles": "hyperformer.workflow",
    "load": "hyperformer.runtime",
    "train": "hyperformer.workflow",
}
"""Public names that are imported when they are first used, by their module."""

__all__ = [
    "Answer",
    "Bundle",
    "HyperFormerError",
    "MultiTaskModel",
    "TaskModels",
    "__version__",
    "export_bundles",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hyperformer")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
