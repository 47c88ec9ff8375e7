"""The last node of a pipeline with long training: it removes the states that an interrupted run resumes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedro.pipeline import Node


def create_cleanup_node(training: str, artifacts: Sequence[str]) -> Node:
    """Create a node that removes the resume states of a training once its artifacts are saved.

    A run that is interrupted before the artifacts are saved resumes from its states.

    Args:
        training: Name of the folder of the training's states.
        artifacts: Datasets that the training saves.
    """

    def remove_states(resume_states: Path, **saved: Any) -> None:
        from hyperformer.training import remove_states

        remove_states(resume_states / training)

    return Node(
        func=remove_states,
        inputs={"resume_states": "resume_states", **{name: name for name in artifacts}},
        outputs=None,
        name=f"remove_{training}_states",
    )
