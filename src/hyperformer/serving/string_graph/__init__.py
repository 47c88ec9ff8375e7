"""String graphs: ONNX graphs that include a bundle's tokenizer, and map the texts of a row's columns to its label.

To run one, onnxruntime needs the operators of onnxruntime-extensions, but no separate tokenizer.
"""

from hyperformer.serving.string_graph.writer import StringGraph, write_string_graph

__all__ = ["StringGraph", "write_string_graph"]
