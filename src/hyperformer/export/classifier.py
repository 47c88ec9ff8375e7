"""Export each classification or regression task to a float32 ONNX graph and possibly an int8 graph.

The inputs are `input_ids` and `attention_mask`; the outputs are `scores`, `probabilities` and, for regression, `value`.
Tasks whose constants have the same shapes share one traced graph: each task's graph is a copy of it with the task's
constants.
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
from hyperformer.core.manifest import GRAPH, TOKENIZER, Manifest
from hyperformer.core.types import Answer, Scoring
from hyperformer.export import graphs, openvino, parity, quantize
from hyperformer.export.target import Target
from hyperformer.model.task_models import TaskModels
from hyperformer.runtime import Bundle
from hyperformer.settings import EvaluationSettings, ExportSettings
from hyperformer.tasks import Task

OUTPUTS = ["scores", "probabilities", "value"]


class ScoringTarget(Target):
    """Base class of the export targets for classification and regression tasks."""

    def __init__(self, models: TaskModels, settings: ExportSettings, evaluation: EvaluationSettings) -> None:
        super().__init__(models, settings, evaluation)
        assert evaluation.label_scoring != "generated"  # checked before a run starts
        self.scoring: Scoring = evaluation.label_scoring

    def check(
        self,
        task: Task,
        folder: Path,
        rows: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, float],
        description: Manifest,
    ) -> dict[str, dict[str, float]]:
        """Compare the scores, labels and metric of the exported task with PyTorch; see `Target.check`."""
        model = self.models[task.name]
        sources = [model.source(task.name, row) for row in rows]
        expected = model.scores(task.name, sources, self.evaluation.batch_size, self.scoring)
        bundle = self.open(folder, description)
        differences = parity.compare(expected, bundle, sources, self.settings.tolerance)
        answers = bundle.answer(rows)
        metric = evaluation.compute_metrics(task, rows, answers)["mean"]
        parity.check_metric(task.name, metric, metrics["mean"], differences)
        return {"parity": differences, **self.check_variants(task, folder, rows, answers, metric, description)}

    def open(self, folder: Path, description: Manifest) -> Bundle:
        """Open an exported task whose manifest is not written yet."""
        return Bundle(folder, description=description)

    def check_variants(
        self,
        task: Task,
        folder: Path,
        rows: Sequence[Mapping[str, Any]],
        answers: Sequence[Answer],
        metric: float,
        description: Manifest,
    ) -> dict[str, dict[str, float]]:
        """Compare the int8 graph and OpenVINO with the float32 graph, if the target has them.

        Args:
            task: the exported task.
            folder: the task's folder.
            rows: every validation row.
            answers: the answers of the float32 graph.
            metric: the metric of the float32 graph on these rows, in percent.
            description: the manifest without the results of the check.

        Returns:
            Further fields of the manifest, by name.
        """
        return {}


class Classifier(ScoringTarget):
    """Export target that writes each task's float32 graph, tokenizer and, if accurate enough, int8 graph."""

    def __init__(self, models: TaskModels, settings: ExportSettings, evaluation: EvaluationSettings) -> None:
        super().__init__(models, settings, evaluation)
        self._graphs: dict[tuple[tuple[str, tuple[int, ...]], ...], onnx.ModelProto] = {}

    def write(self, task: Task, folder: Path) -> None:
        """Write the graphs and tokenizer of a task."""
        baked = self.models[task.name].bake(task.name)
        graphs.write(self._graph(baked, task), folder / GRAPH)
        onnx.checker.check_model(str(folder / GRAPH), full_check=True)
        baked.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        quantize.write(folder)

    def _graph(self, baked: Backbone, task: Task) -> onnx.ModelProto:
        module = baked.build_export_module(baked.encode_answers(task.answers, task.numbers), self.scoring).eval()
        constants = dict(module.named_buffers(remove_duplicate=False))
        shape = tuple((name, tuple(tensor.shape)) for name, tensor in constants.items())
        if shape not in self._graphs:
            self._graphs[shape] = trace_graph(module, self.settings.opset, OUTPUTS[: 3 if task.numbers else 2])
        return fill_constants(self._graphs[shape], constants)

    def check_variants(
        self,
        task: Task,
        folder: Path,
        rows: Sequence[Mapping[str, Any]],
        answers: Sequence[Answer],
        metric: float,
        description: Manifest,
    ) -> dict[str, dict[str, float]]:
        """Return the manifest's fields `int8` and, with `export.openvino`, `openvino`."""
        int8 = quantize.compare(task, rows, Bundle(folder, precision="int8", description=description), metric)
        if not self.settings.openvino:
            return {"int8": int8}
        return {"int8": int8, "openvino": openvino.compare(task, rows, folder, description, answers, metric)}

    def finish(self, folder: Path, description: Manifest) -> Manifest:
        """Remove the int8 graph if it is not accurate enough; see `Target.finish`."""
        if not description.int8["published"]:
            quantize.remove(folder)
        return super().finish(folder, description)


def trace_graph(
    module: nn.Module,
    opset: int,
    outputs: list[str],
    task_inputs: Mapping[str, Tensor] | None = None,
    dynamic_axes: Mapping[str, Mapping[int, Any]] | None = None,
) -> onnx.ModelProto:
    """Trace a module into a graph whose constants have the names of the module's buffers.

    Args:
        module: the module, which takes `input_ids` and `attention_mask`, then `task_inputs`.
        opset: ONNX opset version.
        outputs: names of the module's outputs.
        task_inputs: example values of further inputs, by name.
        dynamic_axes: for each of `task_inputs`, by name, its dynamic axes and their dimensions.

    Returns:
        The graph. Its constants are random numbers, which `fill_constants` replaces.
    """
    task_inputs, dynamic_axes = task_inputs or {}, dynamic_axes or {}
    # random numbers instead of the constants: the exporter would merge equal constants
    module = copy.deepcopy(module)
    noise = torch.Generator().manual_seed(0)
    for tensor in module.buffers():
        tensor.copy_(torch.rand(tensor.shape, generator=noise))
    # two tensors: the tracer would merge two inputs that are the same tensor
    input_ids, attention_mask = torch.ones((2, 2, 5), dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with graphs.silence_output():
        program = torch.onnx.export(
            module,
            (input_ids, attention_mask, *task_inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=["input_ids", "attention_mask", *task_inputs],
            output_names=outputs,
            dynamic_shapes=(axes, axes, *([tuple(dynamic_axes.values())] if task_inputs else [])),
            verbose=False,
        )
    assert program is not None
    graph = graphs.prevent_fusion(graphs.strip_metadata(program.model_proto))
    present = {constant.name for constant in graph.graph.initializer}
    buffers = dict(module.named_buffers(remove_duplicate=False))
    kept = {
        id(tensor) for name, tensor in buffers.items() if name in present or name.removeprefix("module.") in task_inputs
    }
    lost = [name for name, tensor in module.named_buffers() if id(tensor) not in kept]
    assert not lost, f"the exporter folded {lost} into other constants"
    return graph


def fill_constants(traced: onnx.ModelProto, constants: Mapping[str, Tensor]) -> onnx.ModelProto:
    """Return a copy of a traced graph in which these constants replace the constants of the same names."""
    graph = onnx.ModelProto()
    graph.CopyFrom(traced)
    for index, initializer in enumerate(graph.graph.initializer):
        if initializer.name in constants:
            value = numpy_helper.from_array(constants[initializer.name].contiguous().numpy(), initializer.name)
            graph.graph.initializer[index].CopyFrom(value)
    return graph
