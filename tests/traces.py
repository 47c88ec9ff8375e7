"""Cache of graph traces: each structure is traced once per test session, since torch's exporter takes seconds."""

from __future__ import annotations

import fcntl
import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
from torch import nn

from hyperformer.export import classifier, shared_base

TRACE = classifier.trace_graph
PLAIN = (bool, int, float, str, type(None), tuple)


def hash_structure(module: nn.Module, arguments: dict[str, Any]) -> str:
    """Return a hash of what determines a trace: classes, attributes, tensor shapes and arguments.

    A wrong trace would be noticed: every export compares its graph with torch on all validation rows.
    """
    lines = [f"{name}: {value if name != 'task_inputs' else shapes(value)}" for name, value in arguments.items()]
    for name, child in module.named_modules(remove_duplicate=False):
        plain = {key: value for key, value in vars(child).items() if isinstance(value, PLAIN) and key != "training"}
        lines.append(f"{name} {type(child).__module__}.{type(child).__qualname__} {sorted(plain.items())}")
        lines.append(str(shapes(dict(child.named_buffers(recurse=False, remove_duplicate=False)))))
        lines.append(str(shapes(dict(child.named_parameters(recurse=False, remove_duplicate=False)))))
    identities = [id(tensor) for tensor in module.buffers()]
    lines.append(
        str([identities.index(i) for i in map(id, dict(module.named_buffers(remove_duplicate=False)).values())])
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def shapes(tensors: Any) -> Any:
    """Return the shape and type of each tensor by name."""
    return {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in (tensors or {}).items()}


@contextmanager
def reuse_traces(folder: Path) -> Iterator[None]:
    """Read and write traces in a folder, which several processes can use at once."""
    folder.mkdir(parents=True, exist_ok=True)

    def traced(*arguments: Any, **options: Any) -> onnx.ModelProto:
        bound = inspect.signature(TRACE).bind(*arguments, **options).arguments
        file = folder / hash_structure(bound.pop("module"), bound)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be tracing it
            if not file.exists():
                file.write_bytes(TRACE(*arguments, **options).SerializeToString())
        return onnx.ModelProto.FromString(file.read_bytes())

    with mock.patch.object(classifier, "trace_graph", traced), mock.patch.object(shared_base, "trace_graph", traced):
        yield
