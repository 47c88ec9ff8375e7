"""Export classification and regression tasks to one shared graph and a small adapter file for each task.

Tensors that differ between tasks (adapters, encoded labels, task-specific layer norms) are inputs of the shared graph.
onnxruntime reads these inputs by name from the active task's adapter file. Their default values in the graph are zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.func import functional_call

from hyperformer.backbones import Backbone
from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import ADAPTER, GRAPH, TOKENIZER, Base, Manifest
from hyperformer.export import graphs
from hyperformer.export.classifier import OUTPUTS, ScoringTarget, fill_constants, trace_graph
from hyperformer.methods import METHODS
from hyperformer.runtime.shared import SharedBundle, load_base
from hyperformer.tasks import Task

VERSION = 1
"""Version of the adapter and of the model, which onnxruntime's adapter format requires; no code reads it."""


def check_method(name: str) -> None:
    """Check that a method keeps the backbone frozen, so that its tasks can share one graph.

    Raises:
        HyperFormerError: the method trains the backbone.
    """
    if METHODS[name].load().trains_backbone:
        raise HyperFormerError(
            f"method {name} trains the backbone; expected a method with a frozen backbone, which the tasks share. "
            "Export separate bundles, or train with an adapter method."
        )


class SharedBaseTarget(ScoringTarget):
    """Export target that writes one shared graph and tokenizer, and an adapter file for each task."""

    def write_shared(self, tasks: Sequence[Task], folder: Path) -> dict[str, str]:
        """Write the shared graph, its tokenizer and `base.json`, and return the graph's hash as `base`.

        Raises:
            HyperFormerError: the method trains the backbone.
        """
        trained = self.models.first
        check_method(trained.method_settings.name)
        self._answers = [trained.answers[task.name] for task in tasks]
        first, self._task_tensors = self._split_tensors(tasks)
        graph = _build_base(first, self._task_tensors, self.settings.opset)
        graphs.write(graph, folder / GRAPH)
        onnx.checker.check_model(str(folder / GRAPH), full_check=True)
        trained.backbone.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        base = Base(
            format=manifest.BASE_FORMAT,
            backbone=trained.backbone_settings.path,
            method=trained.method_settings.name,
            max_source_tokens=trained.backbone_settings.max_source_tokens,
            files=files,
        )
        base.write(folder)
        return {"base": files[GRAPH]}

    def write(self, task: Task, folder: Path) -> None:
        """Write the adapter file of a task."""
        adapter = onnxruntime.AdapterFormat()
        adapter.set_adapter_version(VERSION)
        adapter.set_model_version(VERSION)
        values = {name: tensor.contiguous().numpy() for name, tensor in self._task_tensors[task.name].items()}
        adapter.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(v) for name, v in values.items()})
        adapter.export_adapter(str(folder / ADAPTER))

    def open(self, folder: Path, description: Manifest) -> SharedBundle:
        """Open an exported task whose manifest is not written yet, on the shared base."""
        return SharedBundle(folder, load_base(folder.parent, None, "float32"), description)

    def _split_tensors(self, tasks: Sequence[Task]) -> tuple[nn.Module, dict[str, dict[str, Tensor]]]:
        """Return the first task's module, and for each task, by name, its tensors that differ between tasks."""
        module = self._make_exportable(self.models[tasks[0].name].bake(tasks[0].name), tasks[0])
        constants = dict(module.named_buffers())  # a tensor with two names becomes one input
        differing: dict[str, dict[str, Tensor]] = {}
        for task in tasks[1:]:
            other = self._make_exportable(self.models[task.name].bake(task.name), task)
            tensors = dict(other.named_buffers(remove_duplicate=False))
            differing[task.name] = {
                name: tensors[name] for name, tensor in constants.items() if not _are_equal(tensor, tensors[name])
            }
        names = [name for name in constants if any(name in tensors for tensors in differing.values())]
        others = {
            task: {name: tensors.get(name, constants[name]) for name in names} for task, tensors in differing.items()
        }
        return module, {tasks[0].name: {name: constants[name] for name in names}, **others}

    def _make_exportable(self, baked: Backbone, task: Task) -> nn.Module:
        return baked.build_export_module(self.models.first.answers[task.name], self.scoring, self._answers).eval()


def _are_equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left, right)


class _BuffersAsInputs(nn.Module):
    """A wrapper of a module that takes the values of some of the module's buffers as inputs."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, list(names)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *tensors: Tensor) -> Any:
        buffers = dict(zip(self.names, tensors, strict=True))
        return functional_call(self.module, buffers, (input_ids, attention_mask))


def _build_base(module: nn.Module, task_tensors: Mapping[str, Mapping[str, Tensor]], opset: int) -> onnx.ModelProto:
    """Build the shared graph: task tensors are inputs, dynamic in the axes whose sizes differ between tasks."""
    names = list(next(iter(task_tensors.values())))
    shapes = {name: [tuple(tensors[name].shape) for tensors in task_tensors.values()] for name in names}
    dims: dict[tuple[int, ...], torch.export.Dim] = {}  # sizes of an axis in all tasks → its dimension
    inputs, axes = {}, {}
    for name, task_shapes in shapes.items():
        dynamic = {}
        for axis, sizes in enumerate(zip(*task_shapes, strict=True)):
            if len(set(sizes)) > 1:
                dynamic[axis] = dims.setdefault(sizes, torch.export.Dim(f"size_{len(dims)}", min=1))
        # a different size for each dimension: the tracer would merge dimensions of equal size
        traced_shape = [
            2 + list(dims.values()).index(dynamic[a]) if a in dynamic else n for a, n in enumerate(task_shapes[0])
        ]
        inputs[name], axes[name] = torch.zeros(traced_shape), dynamic
    graph = trace_graph(_BuffersAsInputs(module, names), opset, OUTPUTS[:2], inputs, axes)
    constants = {f"module.{name}": tensor for name, tensor in module.named_buffers(remove_duplicate=False)}
    graph = fill_constants(graph, constants)
    for name in names:  # onnxruntime requires a default value even for inputs that the adapter provides
        graph.graph.initializer.append(numpy_helper.from_array(torch.zeros(shapes[name][0]).numpy(), name))
    return graph
