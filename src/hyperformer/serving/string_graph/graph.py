"""Build graphs that map texts to token ids, and graphs that map texts to labels."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, compose, helper

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import Manifest
from hyperformer.serving.string_graph.encoding import Tokens
from hyperformer.serving.string_graph.nodes import EXTENSIONS, Nodes

INPUTS = ("input_ids", "attention_mask")
LABEL, PROBABILITIES, TRUNCATED = "label", "probabilities", "truncated"
OPSETS = helper.make_opsetid(EXTENSIONS, 1), helper.make_opsetid("ai.onnx.ml", 2)


def _strings(columns: Sequence[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(column, TensorProto.STRING, ["batch"]) for column in columns]


def build_token_graph(nodes: Nodes, tokens: Tokens, columns: Sequence[str]) -> onnx.ModelProto:
    """Build a graph that maps the strings [B] of columns to the values of `tokens`, which `nodes` compute."""
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, None)
        for name in (tokens.input_ids, tokens.attention_mask)
    ]
    graph = helper.make_graph(nodes.nodes, "tokens", _strings(columns), outputs, nodes.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), *OPSETS], ir_version=10)


def build_string_graph(
    nodes: Nodes, tokens: Tokens, columns: Sequence[str], classifier: onnx.ModelProto, description: Manifest
) -> onnx.ModelProto:
    """Add `nodes` before the bundle's graph, and nodes that choose the label after it.

    Raises:
        HyperFormerError: a column has the name of another value of the graph.
    """
    model = compose.add_prefix(classifier, "model/", rename_inputs=False, rename_outputs=False)
    graph = model.graph
    reserved = {*INPUTS, LABEL, TRUNCATED, *(output.name for output in graph.output)}
    conflicts = [column for column in columns if column in reserved]
    if conflicts:
        raise HyperFormerError(
            f"column {conflicts[0]!r} has a reserved name; expected none of {', '.join(sorted(reserved))}. Rename the "
            "column in the task's text and data."
        )
    after = Nodes(f"{LABEL}/")
    best = after("ArgMax", "scores", axis=-1, keepdims=0)
    values = {
        INPUTS[0]: tokens.input_ids,
        INPUTS[1]: tokens.attention_mask,
        LABEL: after("Gather", after.strings(*description.labels), best),
        TRUNCATED: tokens.truncated,
    }
    aliases = {name: helper.make_node("Identity", [value], [name], name=name) for name, value in values.items()}
    before = [*nodes.nodes, *(aliases[name] for name in INPUTS), *graph.node]
    end = [*after.nodes, aliases[LABEL], aliases[TRUNCATED]]
    outputs = [
        helper.make_tensor_value_info(LABEL, TensorProto.STRING, ["batch"]),
        *graph.output,
        helper.make_tensor_value_info(TRUNCATED, TensorProto.BOOL, ["batch"]),
    ]
    constants = [*nodes.constants, *graph.initializer, *after.constants]
    merged = helper.make_graph(
        [*before, *end], description.task, _strings(columns), outputs, constants, value_info=graph.value_info
    )
    model.graph.CopyFrom(merged)
    model.opset_import.extend(OPSETS)
    return model
