"""The message of an interrupted run: what is kept, and the command that continues."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl
from kedro.runner.runner import _find_nodes_to_resume_from

from pipelines.datasets import get_path

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Node, Pipeline

FROM_NODES = "--from-nodes"
STAGE = "DVC_STAGE"
"""Environment variable that DVC sets for the command of a stage: its name, after its file and a colon, if needed."""
STATES = "resume_states"


class RunProgress:
    """Hooks that remember which nodes of a run have finished and what they have saved."""

    def __init__(self) -> None:
        self._started: list[Node] = []
        self._finished: set[Node] = set()
        self._saved: list[str] = []

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Start with no finished node."""
        self.__init__()  # type: ignore[misc]
        self._pipeline, self._catalog = pipeline, catalog

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Remember the node that runs."""
        self._started.append(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Remember a dataset that is saved to a file; a node has finished when its last output is saved."""
        if get_path(self._catalog[dataset_name]):
            self._saved.append(dataset_name)
        if dataset_name == node.outputs[-1]:
            self._finished.add(node)

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Remember a finished node that saves nothing."""
        if not node.outputs:
            self._finished.add(node)

    def describe_interruption(self, arguments: Sequence[str]) -> str:
        """Describe what an interrupted run has kept, and the command that continues it.

        Args:
            arguments: the arguments of the command `kedro`.
        """
        running = [node for node in self._started if node not in self._finished]
        where = f"Interrupted in the node {running[-1].name}" if running else "Interrupted between two nodes"
        if not self._started:
            where = "Interrupted before the first node"
        kept = [f"the saved {', '.join(self._saved)}"] if self._saved else []
        kept += [state for node in running[-1:] if (state := self._describe_state(node))]
        summary = f"Kept: {'; '.join(kept)}." if kept else "Nothing was saved."
        return f"{where}. {summary} Continue with: {self._resume_command(arguments)}"

    def _describe_state(self, node: Node) -> str:
        """Describe what a node has kept in the folder of resume states: the last state, or finished baselines."""
        if STATES not in node.inputs:
            return ""
        from hyperformer.training.states import find_newest_state, step_of

        folder = Path(str(get_path(self._catalog[STATES])))
        for tag in node.tags:  # a pipeline tags its nodes with its name, and uses the folder of this name
            tasks = sorted(file.stem for file in (folder / tag).glob("*.json"))
            if tag == "baselines" and tasks:
                return f"the baselines of {', '.join(tasks)} in {folder / tag}"
            if state := find_newest_state(folder / tag):
                return f"the resume state of step {step_of(state)} in {state}"
        return ""

    def _resume_command(self, arguments: Sequence[str]) -> str:
        if STAGE in os.environ:
            file = os.environ[STAGE].rpartition(":")[0]
            return shlex.join(["dvc", "repro", *([file] if file else [])])
        command = ["kedro", *arguments]
        if self._finished:
            unfinished = [node for node in self._pipeline.nodes if node not in self._finished]
            names = _find_nodes_to_resume_from(self._pipeline, unfinished, self._catalog)
            command = [*_drop_option(command, FROM_NODES), *([FROM_NODES, ",".join(sorted(names))] if names else [])]
        return shlex.join(command)


def _drop_option(command: Sequence[str], option: str) -> list[str]:
    """Return a command without an option and its value."""
    return [
        word
        for before, word in zip(["", *command], command, strict=False)
        if option not in (before, word) and not word.startswith(f"{option}=")
    ]


PROGRESS = RunProgress()
"""The progress of this process's run: Kedro calls its hooks, and the command line reads it after an interruption."""
