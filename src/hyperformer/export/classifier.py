"""A baked task as one classifier graph: `input_ids`, `attention_mask` → `scores`, `probabilities`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from hyperformer.backbones import Backbone
from hyperformer.config import ExportSettings
from hyperformer.runtime import GRAPH, TOKENIZER
from hyperformer.tasks import Task


def write(baked: Backbone, task: Task, settings: ExportSettings, folder: Path) -> None:
    """Writes graph and tokenizer of a task whose adapters are constants in `baked`."""
    module = baked.exportable(task.answers)
    input_ids, attention_mask = torch.ones(
        (2, 2, 5), dtype=torch.long
    )  # not one tensor twice: the tracer would merge them
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with _quiet():
        program = torch.onnx.export(
            module,
            (input_ids, attention_mask),
            dynamo=True,
            opset_version=settings.opset,
            input_names=["input_ids", "attention_mask"],
            output_names=["scores", "probabilities"],
            dynamic_shapes=(axes, axes),
            verbose=False,
        )
    assert program is not None
    onnx.save_model(_plain(program.model_proto), folder / GRAPH)
    onnx.checker.check_model(str(folder / GRAPH), full_check=True)
    baked.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))


def _plain(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what the exporter says of sources and paths, so that equal models are equal bytes."""
    del graph.metadata_props[:]
    for part in (graph.graph, *graph.functions):
        del part.metadata_props[:]
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in (*part.value_info, *getattr(part, "initializer", []), *getattr(part, "output", [])):
            if hasattr(value, "metadata_props"):
                del value.metadata_props[:]
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own log lines and deprecations say nothing that a user could act on."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
