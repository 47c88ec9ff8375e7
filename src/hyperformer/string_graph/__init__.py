"""A task as one graph from its columns' texts to its label: a bundle's graph with the tokenizer inside.

It runs wherever onnxruntime does with the operators of onnxruntime-extensions, and needs no tokenizer beside it.
"""

from hyperformer.string_graph.graph import Written, write_string_graph

__all__ = ["Written", "write_string_graph"]
