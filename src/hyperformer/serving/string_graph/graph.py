"""Build graphs that map texts to token ids, and graphs that map texts to labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from onnx import TensorProto, compose, helper

from hyperformer.core.manifest import Manifest
from hyperformer.serving.string_graph.encoding import Tokens
from hyperformer.serving.string_graph.nodes import EXTENSIONS, Nodes

INPUTS = ("input_ids", "attention_mask")
LABEL, PROBABILITIES, TRUNCATED = "label", "probabilities", "truncated"
RESERVED = frozenset({*INPUTS, LABEL, PROBABILITIES, TRUNCATED, "scores", "value"})
"""Names of the outputs of string graphs and of the inputs and outputs of bundles' graphs."""
OPSETS = helper.make_opsetid(EXTENSIONS, 1), helper.make_opsetid("ai.onnx.ml", 2)


def name_inputs(columns: Sequence[str]) -> dict[str, str]:
    """Return the name of the input of each column: the column's name, or `column:<name>` if that name is reserved."""
    return {column: f"column:{column}" if column in RESERVED else column for column in columns}


def _strings(inputs: Iterable[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.STRING, ["batch"]) for name in inputs]


def build_token_graph(nodes: Nodes, tokens: Tokens, inputs: Iterable[str]) -> onnx.ModelProto:
    """Build a graph that maps the strings [B] of its inputs to the values of `tokens`, which `nodes` compute."""
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, None)
        for name in (tokens.input_ids, tokens.attention_mask)
    ]
    graph = helper.make_graph(nodes.nodes, "tokens", _strings(inputs), outputs, nodes.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), *OPSETS], ir_version=10)


def build_string_graph(
    nodes: Nodes, tokens: Tokens, inputs: Iterable[str], classifier: onnx.ModelProto, description: Manifest
) -> onnx.ModelProto:
    """Add `nodes` before the bundle's graph, and nodes that choose the label after it."""
    model = compose.add_prefix(classifier, "model:", rename_inputs=False, rename_outputs=False)
    graph = model.graph
    after = Nodes(f"{LABEL}:")
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
        [*before, *end], description.task, _strings(inputs), outputs, constants, value_info=graph.value_info
    )
    model.graph.CopyFrom(merged)
    model.opset_import.extend(OPSETS)
    return model
