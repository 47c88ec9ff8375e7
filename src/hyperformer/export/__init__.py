"""Export tasks to ONNX and verify them. A target is a module and a call of `register_target`."""

from __future__ import annotations

from hyperformer.export.classifier import Classifier
from hyperformer.export.seq2seq import Seq2Seq
from hyperformer.export.shared_base import SharedBaseTarget
from hyperformer.export.target import Target

TARGETS: dict[str, type[Target]] = {}
"""The export target of each registered kind of task, for separate bundles (without a shared base)."""


def register_target(target: type[Target], *kinds: str) -> None:
    """Register an export target for kinds of tasks."""
    TARGETS.update(dict.fromkeys(kinds, target))


register_target(Classifier, "classification", "regression")
register_target(Seq2Seq, "generation")

__all__ = ["TARGETS", "SharedBaseTarget", "Target", "register_target"]
