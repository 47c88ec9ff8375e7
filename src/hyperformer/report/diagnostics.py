"""The part of a report's summary that shows how training changed the weights of the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperformer.methods.diagnostics import is_collapsed

MEASURES = {
    "task_share": "task-specific share of the adapters",
    "input_cosine": "cosine between tasks of the generators' inputs",
    "offset_ratio": "size of the offsets, relative to the shared adapter",
}
"""Measures of `Method.diagnose`, with the names that a reader sees."""


@dataclass(frozen=True)
class GroupSize:
    """Sizes of a kind of parameters at the last validation."""

    kind: str
    gradient: float
    """Norm of the gradient, after clipping."""
    update: float
    """Norm of the change in one step, divided by the norm of the parameters."""


@dataclass(frozen=True)
class Diagnostics:
    """Measures of the weights at each validation."""

    measures: Mapping[str, tuple[float, ...]]
    """Values of each measure in `MEASURES` by the name that a reader sees, at each validation."""
    task_share: float | None
    """Task-specific share of the adapters at the last validation; None if the method has no task-specific adapters."""
    is_collapsed: bool
    """Whether all tasks have nearly the same adapter."""
    groups: tuple[GroupSize, ...]


def summarize_diagnostics(history: Sequence[Mapping[str, Any]]) -> Diagnostics | None:
    """Summarize the measures of a history of validations; None if it has none, as that of several models."""
    lines = [line.get("diagnostics", {}) for line in history]
    if not lines or not lines[-1]:
        return None
    last = lines[-1]
    kinds = [name.removeprefix("gradient/") for name in last if name.startswith("gradient/")]
    return Diagnostics(
        measures={
            label: tuple(line[name] for line in lines)
            for name, label in MEASURES.items()
            if all(name in line for line in lines)
        },
        task_share=last.get("task_share"),
        is_collapsed=is_collapsed(last),
        groups=tuple(GroupSize(kind, last[f"gradient/{kind}"], last[f"update/{kind}"]) for kind in kinds),
    )
