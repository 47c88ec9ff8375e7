"""The last node of long work: its resume states go when all that they led to is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedro.pipeline import node
from kedro.pipeline.node import Node


def states_removed(kind: str, made: Sequence[str]) -> Node:
    """What removes the resume states of a kind of work after these artifacts: a run that ends before goes on."""

    def remove(resume_states: Path, *made: Any) -> None:
        from hyperformer.training import remove_states

        remove_states(resume_states / kind)

    return node(remove, ["resume_states", *made], None, name=f"{kind}_states_removed")
