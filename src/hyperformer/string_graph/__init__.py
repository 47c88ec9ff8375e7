"""String graphs: a bundle's graph with its tokenizer inside, from the texts of the columns to the label.

They need onnxruntime with the operators of onnxruntime-extensions, and no separate tokenizer.
"""

from hyperformer.string_graph.graph import StringGraph, write_string_graph

__all__ = ["StringGraph", "write_string_graph"]
