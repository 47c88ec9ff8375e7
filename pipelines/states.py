"""The last node of a pipeline with long training: it removes the states that an interrupted run resumes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedro.pipeline import node
from kedro.pipeline.node import Node


def create_cleanup_node(kind: str, artifacts: Sequence[str]) -> Node:
    """Create a node that removes the resume states of a kind of training once its artifacts are saved.

    A run that is interrupted before the artifacts are saved resumes from its states.
    """

    def remove(resume_states: Path, *saved: Any) -> None:
        from hyperformer.training import remove_states

        remove_states(resume_states / kind)

    return node(remove, ["resume_states", *artifacts], None, name=f"{kind}_states_removed")
