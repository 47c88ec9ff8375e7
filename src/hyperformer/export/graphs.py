"""What all graphs have in common: how they are written, and that equal models are equal bytes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import onnx

LARGEST = 2_000_000_000  # bytes of constants in one file


def write(graph: onnx.ModelProto, path: Path) -> None:
    """One file up to protobuf's 2 GB; beyond, the constants in one file beside it."""
    onnx.save_model(graph, path, save_as_external_data=large(graph), location=f"{path.name}.data")


def large(graph: onnx.ModelProto) -> bool:
    """Whether the constants of a graph need a file of their own."""
    return sum(len(constant.raw_data) for constant in graph.graph.initializer) > LARGEST


def plain(graph: onnx.ModelProto) -> onnx.ModelProto:
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


def numbered(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its constants named and put in the order of their first use, also by graphs inside of it.

    optimum's merged decoder names what its two halves share by whichever half a set gives first.
    """
    own = {constant.name: constant for constant in graph.graph.initializer}
    parts = list(nested(graph.graph))
    used = dict.fromkeys(name for part in parts for node in part.node for name in node.input if name in own)
    names = {name: f"constant_{number}" for number, name in enumerate(used)}
    for part in parts:
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
    for name, constant in own.items():
        constant.name = names.get(name, name)
    ordered = [own[name] for name in [*used, *sorted(own.keys() - used.keys())]]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(ordered)
    return graph


def nested(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nested(attribute.g)


def unfused(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the residual sums before layer norms as `Sum`.

    onnxruntime makes one kernel of an `Add` and the layer norm after it, which takes three times as long as both on a
    processor (1.32).
    """
    constants = {constant.name for constant in graph.graph.initializer}
    sums = {node.output[0]: node for node in graph.graph.node if node.op_type == "Add"}
    for node in graph.graph.node:
        before = sums.get(node.input[0]) if node.op_type == "LayerNormalization" else None
        if before is not None and not constants & set(before.input):
            before.op_type = "Sum"
    return graph


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters tell of their work at length, and nothing that a user could act on; a failure still says why."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w", encoding="utf-8") as nowhere:
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(level)
