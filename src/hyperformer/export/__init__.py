"""Export tasks to ONNX and verify them. A target is a module and a call of `register_target`."""

from __future__ import annotations

from collections.abc import Mapping

from hyperformer.core.errors import HyperFormerError
from hyperformer.export.classifier import Classifier
from hyperformer.export.seq2seq import Seq2Seq
from hyperformer.export.shared_base import SharedBaseTarget
from hyperformer.export.target import Target
from hyperformer.tasks import Task

TARGETS: dict[str, type[Target]] = {}
"""The export target of each registered kind of task, for separate bundles (without a shared base)."""


def register_target(target: type[Target], *kinds: str) -> None:
    """Register an export target for kinds of tasks.

    Raises:
        ValueError: another target is registered for a kind.
    """
    for kind in kinds:
        if TARGETS.setdefault(kind, target) is not target:
            raise ValueError(f"the task kind {kind!r} has an export target already; expected another kind")


def check_targets(tasks: Mapping[str, Task]) -> None:
    """Check that every task has an export target.

    Raises:
        HyperFormerError: no target is registered for the kind of a task.
    """
    for name, task in tasks.items():
        if task.settings.kind not in TARGETS:
            raise HyperFormerError(
                f"task {name!r}: no export target is registered for the kind {task.settings.kind!r}; expected one of "
                f"{', '.join(TARGETS)}. Call hyperformer.export.register_target."
            )


register_target(Classifier, "classification", "regression")
register_target(Seq2Seq, "generation")

__all__ = ["TARGETS", "SharedBaseTarget", "Target", "check_targets", "register_target"]
