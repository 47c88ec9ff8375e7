"""Export tasks to ONNX and verify them. A new target is one module here and one line in `TARGETS`."""

from __future__ import annotations

from hyperformer.export.classifier import Classifier
from hyperformer.export.seq2seq import Seq2Seq
from hyperformer.export.shared_base import SharedBaseTarget
from hyperformer.export.target import Target

TARGETS: dict[str, type[Target]] = {"classification": Classifier, "regression": Classifier, "generation": Seq2Seq}
"""The export target of each task kind, for bundles that share nothing."""

__all__ = ["TARGETS", "SharedBaseTarget", "Target"]
