"""Rules on the nodes of all pipelines."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest
from kedro.framework.project import configure_project, pipelines
from kedro.pipeline import Node

VERBS = (
    "adapt", "build", "check", "count", "encode", "evaluate", "export", "generate", "measure", "prepare", "pretrain",
    "profile", "remove", "score", "train", "write",
)  # fmt: skip


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    configure_project("pipelines")
    return sorted({node for pipeline in pipelines.values() for node in pipeline.nodes})


def test_the_name_of_a_node_begins_with_a_verb(nodes):
    assert {node.name.partition("_")[0] for node in nodes} == set(VERBS)


def test_inputs_are_passed_by_keyword(nodes):
    assert [node.name for node in nodes if not isinstance(node._inputs, dict)] == []


def test_kedro_can_read_the_type_of_every_parameter_and_of_the_result(nodes):
    """Kedro ignores all annotations of a function if one of them is not importable at run time."""
    for node in nodes:
        assert get_type_hints(node.func).keys() == {*inspect.signature(node.func).parameters, "return"}, node.name
