"""Fixtures of the unit tests, which start no process, train nothing and export nothing; `make check` runs them."""

from __future__ import annotations

import multiprocessing.process
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_long_work() -> Iterator[None]:
    """Fail a test that belongs in tests/integration."""
    import torch
    import transformers

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("tests/unit starts no process, trains nothing and exports nothing; move this to tests/integration")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
        patch.setattr(torch.onnx, "export", refuse)
        patch.setattr(transformers.Trainer, "train", refuse)
        yield
