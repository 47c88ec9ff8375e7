"""Change and write ONNX graphs; equal models give files with equal bytes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import onnx

LARGEST = 2_000_000_000
"""Maximum size of the constants in a graph's file, in bytes; protobuf limits a file to 2 GiB."""


def write(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph to a file; if its constants exceed 2 GB in total, they go to a second file next to it."""
    onnx.save_model(graph, path, save_as_external_data=is_large(graph), location=f"{path.name}.data")


def is_large(graph: onnx.ModelProto) -> bool:
    """Return whether the constants of a graph need a separate file."""
    return sum(len(constant.raw_data) for constant in graph.graph.initializer) > LARGEST


def strip_metadata(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's metadata on source code and paths, so that equal models have equal bytes."""
    del graph.metadata_props[:]
    for proto in (graph.graph, *graph.functions):
        del proto.metadata_props[:]
        for node in proto.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in (*proto.value_info, *getattr(proto, "initializer", []), *getattr(proto, "output", [])):
            if hasattr(value, "metadata_props"):
                del value.metadata_props[:]
    return graph


def number_constants(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Rename a graph's constants to `constant_<n>` in the order of their first use, and sort them in that order.

    If both decoders of a merged decoder use a constant, optimum names it after its name in one of the two; which one
    depends on the order of a Python set.
    """
    constants = {constant.name: constant for constant in graph.graph.initializer}
    subgraphs = list(iterate_graphs(graph.graph))
    used = dict.fromkeys(name for sub in subgraphs for node in sub.node for name in node.input if name in constants)
    names = {name: f"constant_{number}" for number, name in enumerate(used)}
    for subgraph in subgraphs:
        for node in subgraph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
    for name, constant in constants.items():
        constant.name = names.get(name, name)
    ordered = [constants[name] for name in [*used, *sorted(constants.keys() - used.keys())]]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(ordered)
    return graph


def iterate_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all of its subgraphs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from iterate_graphs(attribute.g)


def prevent_fusion(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the residual `Add` before each layer norm by `Sum`, so that onnxruntime cannot fuse the two.

    On CPU the fused kernel takes three times as long as the two separate kernels (onnxruntime 1.32).
    """
    constants = {constant.name for constant in graph.graph.initializer}
    sums = {node.output[0]: node for node in graph.graph.node if node.op_type == "Add"}
    for node in graph.graph.node:
        residual = sums.get(node.input[0]) if node.op_type == "LayerNormalization" else None
        if residual is not None and not constants & set(residual.input):
            residual.op_type = "Sum"
    return graph


@contextmanager
def silence_output() -> Iterator[None]:
    """Suppress the output of exporters, including warnings and log messages below the level of errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w", encoding="utf-8") as devnull:
            warnings.simplefilter("ignore")
            with redirect_stdout(devnull), redirect_stderr(devnull):
                yield
    finally:
        logging.disable(level)
