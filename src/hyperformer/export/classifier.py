"""Baked tasks as classifier graphs: `input_ids`, `attention_mask` → `scores`, `probabilities`, and maybe `value`.

A graph is traced once for all tasks whose answers have the same shape; the others are it with their own constants.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from hyperformer import evaluation
from hyperformer.backbones import Backbone
from hyperformer.config import EvaluationSettings, ExportSettings
from hyperformer.export import graphs, parity, quantize
from hyperformer.export.target import Target
from hyperformer.manifest import GRAPH, TOKENIZER, Manifest
from hyperformer.model import MultiTaskModel
from hyperformer.runtime import Bundle, load
from hyperformer.tasks import Task
from hyperformer.types import Scoring

OUTPUTS = ["scores", "probabilities", "value"]


class ClosedTarget(Target):
    """What is common to targets of tasks whose answers are given."""

    def __init__(self, model: MultiTaskModel, settings: ExportSettings, evaluation: EvaluationSettings) -> None:
        super().__init__(model, settings, evaluation)
        assert evaluation.label_scoring != "generated"  # the gate before a run sees to it
        self.scoring: Scoring = evaluation.label_scoring

    def check(
        self, task: Task, folder: Path, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], made: Manifest
    ) -> dict[str, dict[str, float]]:
        made.write(folder)
        sources = [self.model.source(task.name, row) for row in rows]
        expected = self.model.scores(task.name, sources, self.evaluation.batch_size, self.scoring)
        bundle = load(folder)
        assert isinstance(bundle, Bundle)
        found = parity.compare(expected, bundle, sources, self.settings.tolerance)
        own = evaluation.metrics(task, rows, bundle.answer(rows))["mean"]
        parity.same_metric(task.name, own, metrics["mean"], found)
        return {"parity": found, **self.more(task, folder, rows, own)}

    def more(
        self, task: Task, folder: Path, rows: Sequence[Mapping[str, Any]], metric: float
    ) -> dict[str, dict[str, float]]:
        """What else there is to say in the manifest; `metric` is the graph's own on these rows, in percent."""
        return {}


class Classifier(ClosedTarget):
    """Graph, tokenizer, and the graph in int8 where it loses too little to matter."""

    def __init__(self, model: MultiTaskModel, settings: ExportSettings, evaluation: EvaluationSettings) -> None:
        super().__init__(model, settings, evaluation)
        self._graphs: dict[tuple[tuple[str, tuple[int, ...]], ...], onnx.ModelProto] = {}

    def write(self, task: Task, folder: Path) -> None:
        baked = self.model.bake(task.name)
        graphs.write(self._graph(baked, task), folder / GRAPH)
        onnx.checker.check_model(str(folder / GRAPH), full_check=True)
        baked.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        quantize.write(folder)

    def _graph(self, baked: Backbone, task: Task) -> onnx.ModelProto:
        module = baked.exportable(baked.answers(task.answers, task.numbers), self.scoring).eval()
        constants = dict(module.named_buffers(remove_duplicate=False))
        shape = tuple((name, tuple(tensor.shape)) for name, tensor in constants.items())
        if shape not in self._graphs:
            self._graphs[shape] = traced(module, self.settings.opset, OUTPUTS[: 3 if task.numbers else 2])
        return filled(self._graphs[shape], constants)

    def more(
        self, task: Task, folder: Path, rows: Sequence[Mapping[str, Any]], metric: float
    ) -> dict[str, dict[str, float]]:
        return {"int8": quantize.judge(task, folder, rows, metric)}


def traced(
    module: nn.Module,
    opset: int,
    outputs: list[str],
    own: Mapping[str, Tensor] | None = None,
    open_axes: Mapping[str, Mapping[int, Any]] | None = None,
) -> onnx.ModelProto:
    """The graph of a module, its constants under the names of the module's buffers.

    Args:
        own: further inputs after `input_ids` and `attention_mask`, by name; what is said of sizes holds of any values.
        open_axes: of each of them, the axes whose sizes may differ from call to call.
    """
    own, open_axes = own or {}, open_axes or {}
    # traced with noise in place of the constants: the exporter makes one of equal ones
    module = copy.deepcopy(module)
    noise = torch.Generator().manual_seed(0)
    for tensor in module.buffers():
        tensor.copy_(torch.rand(tensor.shape, generator=noise))
    input_ids, attention_mask = torch.ones(
        (2, 2, 5), dtype=torch.long
    )  # not one tensor twice: the tracer would merge them
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with graphs.quiet():
        program = torch.onnx.export(
            module,
            (input_ids, attention_mask, *own.values()),
            dynamo=True,
            opset_version=opset,
            input_names=["input_ids", "attention_mask", *own],
            output_names=outputs,
            dynamic_shapes=(axes, axes, *([tuple(open_axes.values())] if own else [])),
            verbose=False,
        )
    assert program is not None
    graph = graphs.unfused(graphs.plain(program.model_proto))
    present = {constant.name for constant in graph.graph.initializer}
    buffers = dict(module.named_buffers(remove_duplicate=False))
    kept = {id(tensor) for name, tensor in buffers.items() if name in present or name.removeprefix("module.") in own}
    lost = [name for name, tensor in module.named_buffers() if id(tensor) not in kept]
    assert not lost, f"the exporter folded {lost} into other constants"
    return graph


def filled(traced: onnx.ModelProto, constants: Mapping[str, Tensor]) -> onnx.ModelProto:
    """A copy with these constants in place of the ones of the same name."""
    graph = onnx.ModelProto()
    graph.CopyFrom(traced)
    for place, initializer in enumerate(graph.graph.initializer):
        if initializer.name in constants:
            value = numpy_helper.from_array(constants[initializer.name].contiguous().numpy(), initializer.name)
            graph.graph.initializer[place].CopyFrom(value)
    return graph
