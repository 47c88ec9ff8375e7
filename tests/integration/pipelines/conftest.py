"""Fixtures: a copy of the project whose default pipeline has run once."""

from __future__ import annotations

import shutil

import pytest
from processes import Audit, copy_project, kedro


@pytest.fixture(scope="session")
def audit() -> Audit:
    """Return the record of files that the runs of `tree` opened."""
    return Audit()


@pytest.fixture(scope="session")
def tree(tmp_path_factory, audit):
    """Return a copy of the project after a run in the test environment; tests may only read or copy it."""
    copy = copy_project(tmp_path_factory.mktemp("tree"))
    with audit.watch():
        for arguments in (["--pipelines", "pretrain"], []):
            result = kedro(copy, *arguments)
            assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return copy


@pytest.fixture
def copy(tree, tmp_path):
    """Return a copy of `tree` that a test may change."""
    return shutil.copytree(tree, tmp_path / "copy")
