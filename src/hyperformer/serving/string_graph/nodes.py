"""Build the nodes and constants of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

EXTENSIONS = "ai.onnx.contrib"
"""Domain of the operators of onnxruntime-extensions."""


class Nodes:
    """The nodes and constants of a graph.

    Each method except `new_name` adds a constant and returns its name, or adds a node and returns the names of its
    outputs.

    Args:
        prefix: prefix of the names of all nodes, constants and outputs. It contains a colon, which no column name has,
            so that they differ from the names of columns.
    """

    def __init__(self, prefix: str = "text:") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def new_name(self, kind: str) -> str:
        """Return an unused name for a node or constant of a kind."""
        return f"{self.prefix}{len(self.nodes) + len(self.constants)}/{kind}"

    def __call__(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        return self.with_outputs(kind, 1, *inputs, domain=domain, **attributes)[0]

    def with_outputs(self, kind: str, count: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        name = self.new_name(kind)
        outputs = [f"{name}/{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs

    def extension(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of onnxruntime-extensions and return the name of its output."""
        return self(kind, *inputs, domain=EXTENSIONS, **attributes)

    def constant(self, value: NDArray[Any] | Sequence[int] | int) -> str:
        """Add a constant to the graph (int64, unless `value` is an array) and return its name."""
        name = self.new_name("constant")
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype=np.int64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def strings(self, *values: str) -> str:
        """Add a constant of strings [n] to the graph and return its name."""
        name = self.new_name("strings")
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=object), name))
        return name
