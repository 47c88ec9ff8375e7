"""Nodes of a graph, written one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

CONTRIBUTED = "ai.onnx.contrib"
"""The domain of onnxruntime-extensions' operators."""


class Nodes:
    """Nodes and constants of a graph.

    Args:
        prefix: what the names of their values begin with.
    """

    def __init__(self, prefix: str = "text/") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def name(self, kind: str) -> str:
        """A name that no value has yet."""
        return f"{self.prefix}{len(self.nodes) + len(self.constants)}/{kind}"

    def __call__(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node; its output's name."""
        return self.several(kind, 1, *inputs, domain=domain, **attributes)[0]

    def several(self, kind: str, count: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Adds a node; its outputs' names."""
        name = self.name(kind)
        outputs = [f"{name}/{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs

    def contributed(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of onnxruntime-extensions; its output's name."""
        return self(kind, *inputs, domain=CONTRIBUTED, **attributes)

    def constant(self, value: NDArray[Any] | Sequence[int] | int) -> str:
        """Adds numbers; int64 unless they have a type."""
        name = self.name("constant")
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype=np.int64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def words(self, *values: str) -> str:
        """Adds strings [n]."""
        name = self.name("words")
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=object), name))
        return name
