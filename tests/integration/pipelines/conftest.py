"""A project whose chain has run once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from processes import ROOT, Audit, kedro


def copy_project(folder: Path) -> Path:
    """Copy what `kedro run` needs into a folder."""
    for name in ("conf", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("local", "__pycache__"))
    for file in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / file, folder / file)
    (folder / "conf" / "local").mkdir()
    return folder


@pytest.fixture(scope="session")
def audit() -> Audit:
    """The files that the runs of `tree` opened."""
    return Audit()


@pytest.fixture(scope="session")
def tree(tmp_path_factory, audit):
    """A copy of the project after the test environment's whole run. Tests only read it, or copy it."""
    copy = copy_project(tmp_path_factory.mktemp("tree"))
    with audit.watch():
        for arguments in (["--pipelines", "pretrain"], []):
            done = kedro(copy, *arguments)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return copy


@pytest.fixture
def copy(tree, tmp_path):
    """A copy of the tree, for a test to change."""
    return shutil.copytree(tree, tmp_path / "copy")
