"""The graph that maps texts to token ids, alone."""

from __future__ import annotations

import onnx
from tokenizers import Tokenizer

from hyperformer.core import text
from hyperformer.core.types import Source
from hyperformer.serving.string_graph import graph
from hyperformer.serving.string_graph.encoding import add_tokens
from hyperformer.serving.string_graph.nodes import Nodes


def build_token_graph(template: Source, tokenizer: Tokenizer, longest: int) -> onnx.ModelProto:
    """Build the graph for the columns of a template; sources are truncated to `longest` tokens."""
    nodes = Nodes()
    inputs = graph.name_inputs(text.find_columns(template))
    tokens = add_tokens(nodes, template, tokenizer, longest, inputs)
    return graph.build_token_graph(nodes, tokens, inputs.values())
