"""A project whose chain has run once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toys import audited, kedro

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of the project after the test environment's whole run, what was opened meanwhile told beside it."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in ("conf", "pipelines"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("local", "__pycache__"))
    for file in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / file, copy / file)
    (copy / "conf" / "local").mkdir()
    environment = audited(copy.with_name(f"{copy.name} audit"))
    for words in (["--pipelines", "pretrain"], []):
        done = kedro(copy, *words, **environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return copy
