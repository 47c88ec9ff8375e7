"""Export tasks to ONNX and verify them. To add a target, add a module to this package and a line to `TARGETS`."""

from __future__ import annotations

from hyperformer.export.classifier import Classifier
from hyperformer.export.seq2seq import Seq2Seq
from hyperformer.export.shared_base import SharedBaseTarget
from hyperformer.export.target import Target

TARGETS: dict[str, type[Target]] = {"classification": Classifier, "regression": Classifier, "generation": Seq2Seq}
"""The export target of each kind of task, for separate bundles (without a shared base)."""

__all__ = ["TARGETS", "SharedBaseTarget", "Target"]
