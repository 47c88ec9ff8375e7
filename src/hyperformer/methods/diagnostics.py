"""Judgement of the measures of a method's weights; this module does not import PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

COLLAPSED_SHARE = 0.05
"""Task-specific share of the adapters below which all tasks have nearly the same adapter.

HyperFormer++ with a projector and one learning rate has 0.03 to 0.05 on eight tasks of GLUE and MiniLM, and 0.26 on the
embedded tasks; independent adapters of eight tasks have 0.87.
"""


def is_collapsed(measures: Mapping[str, float]) -> bool:
    """Return whether the tasks have nearly the same adapter, given the measures of `Method.diagnose`."""
    return measures.get("task_share", 1.0) < COLLAPSED_SHARE
