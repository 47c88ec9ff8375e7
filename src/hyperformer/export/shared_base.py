"""All tasks of a checkpoint on one graph: what they share stands in it once, and beside it a small file for each task.

What differs between tasks (adapters, answers, and layer norms where each task has its own) are inputs of the base
graph, which onnxruntime feeds from a task's adapter file by name. The graph holds zeros in their place.
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

from hyperformer import manifest
from hyperformer.backbones import Backbone
from hyperformer.export import graphs
from hyperformer.export.classifier import OUTPUTS, ClosedTarget, filled, traced
from hyperformer.manifest import ADAPTER, GRAPH, TOKENIZER, Base
from hyperformer.methods import METHODS
from hyperformer.tasks import Task
from hyperformer.types import HyperFormerError

VERSION = 1  # of adapter files, for onnxruntime's own use


def check_method(name: str) -> None:
    """Refuses a method whose tasks have no base to share.

    Raises:
        HyperFormerError: it trains the backbone itself.
    """
    if METHODS[name].trains_backbone:
        raise HyperFormerError(
            f"the method {name} trains the backbone itself, so that its tasks share no frozen base; export bundles, or "
            "train a method with adapters"
        )


class SharedBase(ClosedTarget):
    """The base graph and its tokenizer, and a file of inputs for each task."""

    def begin(self, tasks: Sequence[Task], folder: Path) -> dict[str, str]:
        check_method(self.model.method_settings.name)
        self._among = [self.model.answers[task.name] for task in tasks]
        first, self._own = self._parted(tasks)
        graph = _base(first, self._own, self.settings.opset)
        graphs.write(graph, folder / GRAPH)
        onnx.checker.check_model(str(folder / GRAPH), full_check=True)
        self.model.backbone.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        files = {path.name: manifest.sha256(path) for path in sorted(folder.iterdir())}
        base = Base(
            format=manifest.BASE_FORMAT,
            backbone=self.model.backbone_settings.path,
            method=self.model.method_settings.name,
            max_source_tokens=self.model.backbone_settings.max_source_tokens,
            files=files,
        )
        base.write(folder)
        return {"base": files[GRAPH]}

    def write(self, task: Task, folder: Path) -> None:
        adapter = onnxruntime.AdapterFormat()
        adapter.set_adapter_version(VERSION)
        adapter.set_model_version(VERSION)
        values = {name: tensor.contiguous().numpy() for name, tensor in self._own[task.name].items()}
        adapter.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(v) for name, v in values.items()})
        adapter.export_adapter(str(folder / ADAPTER))

    def _parted(self, tasks: Sequence[Task]) -> tuple[nn.Module, dict[str, dict[str, Tensor]]]:
        """The first task's module; and of every task what is not the same in all, by name."""
        module = self._module(self.model.bake(tasks[0].name), tasks[0])
        constants = dict(module.named_buffers())  # what stands twice is one input
        differ: dict[str, dict[str, Tensor]] = {}
        for task in tasks[1:]:
            other = self._module(self.model.bake(task.name), task)
            found = dict(other.named_buffers(remove_duplicate=False))
            differ[task.name] = {
                name: found[name] for name, tensor in constants.items() if not _same(tensor, found[name])
            }
        names = [name for name in constants if any(name in one for one in differ.values())]
        own = {task: {name: one.get(name, constants[name]) for name in names} for task, one in differ.items()}
        return module, {tasks[0].name: {name: constants[name] for name in names}, **own}

    def _module(self, baked: Backbone, task: Task) -> nn.Module:
        return baked.exportable(self.model.answers[task.name], self.scoring, self._among).eval()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


class _Fed(nn.Module):
    """A module of which some buffers are given anew in each call."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, list(names)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *own: Tensor) -> Any:
        given = dict(zip(self.names, own, strict=True))
        return functional_call(self.module, given, (input_ids, attention_mask))


def _base(module: nn.Module, own: Mapping[str, Mapping[str, Tensor]], opset: int) -> onnx.ModelProto:
    """The graph whose inputs are what the tasks own, open in the axes whose sizes differ between them."""
    names = list(next(iter(own.values())))
    shapes = {name: [tuple(one[name].shape) for one in own.values()] for name in names}
    sizes: dict[tuple[int, ...], torch.export.Dim] = {}  # what the tasks have on an axis → that axis
    inputs, axes = {}, {}
    for name, found in shapes.items():
        open_axes = {}
        for axis, sized in enumerate(zip(*found, strict=True)):
            if len(set(sized)) > 1:
                open_axes[axis] = sizes.setdefault(sized, torch.export.Dim(f"size_{len(sizes)}", min=1))
        # each axis has a size of its own while it is traced: the tracer takes equal ones for one
        traced_at = [
            2 + list(sizes.values()).index(open_axes[a]) if a in open_axes else n for a, n in enumerate(found[0])
        ]
        inputs[name], axes[name] = torch.zeros(traced_at), open_axes
    fed = _Fed(module, names)
    graph = traced(fed, opset, OUTPUTS[:2], inputs, axes)
    constants = {f"module.{name}": tensor for name, tensor in module.named_buffers(remove_duplicate=False)}
    graph = filled(graph, constants)
    for name in names:  # onnxruntime asks for an input that has no value yet, although the adapter will bring it
        graph.graph.initializer.append(numpy_helper.from_array(torch.zeros(shapes[name][0]).numpy(), name))
    return graph
