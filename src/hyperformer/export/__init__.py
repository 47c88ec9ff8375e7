"""Bakes tasks into graphs and checks them. A new target is one file here and one line in `TARGETS`."""

from __future__ import annotations

from hyperformer.export.classifier import Classifier
from hyperformer.export.seq2seq import Seq2Seq
from hyperformer.export.shared_base import SharedBase
from hyperformer.export.target import Target

TARGETS: dict[str, type[Target]] = {"classification": Classifier, "regression": Classifier, "generation": Seq2Seq}
"""Which target each task kind is exported to, where each task stands for itself."""

__all__ = ["TARGETS", "SharedBase", "Target"]
