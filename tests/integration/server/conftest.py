"""A running server of the toy tasks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, running


@pytest.fixture(scope="module")
def server(bundles: Path) -> Iterator[Running]:
    with running(bundles) as found:
        yield found


@pytest.fixture
def copied(bundles: Path, tmp_path: Path) -> Path:
    """Bundles to change."""
    shutil.copytree(bundles, tmp_path / "onnx")
    return tmp_path / "onnx"


@pytest.fixture(scope="session")
def rows(toy_rows: Path) -> dict[str, list[dict[str, str]]]:
    """The columns of each task's text, of every validation row."""
    from toys import task_settings

    from hyperformer.data import read_rows
    from hyperformer.text import columns

    return {
        name: [{one: row[one] for one in columns(task["text"])} for row in read_rows(toy_rows, name, "validation")]
        for name, task in task_settings().items()
    }
