"""Fixtures: a running server of the toy tasks, and their rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, running


@pytest.fixture(scope="module")
def server(bundles: Path) -> Iterator[Running]:
    with running(bundles) as server:
        yield server


@pytest.fixture
def copied(bundles: Path, tmp_path: Path) -> Path:
    """Return a copy of the bundles, for tests that change them."""
    shutil.copytree(bundles, tmp_path / "onnx")
    return tmp_path / "onnx"


@pytest.fixture(scope="session")
def rows(toy_rows: Path) -> dict[str, list[dict[str, str]]]:
    """Return the validation rows of each task, with the columns of its text."""
    from toys import task_settings

    from hyperformer.core.text import find_columns
    from hyperformer.data.storage import read_rows

    return {
        name: [
            {column: row[column] for column in find_columns(task["text"])}
            for row in read_rows(toy_rows, name, "validation")
        ]
        for name, task in task_settings().items()
    }
