"""Threads spin shortly in every command, because the package is imported before PyTorch."""

from __future__ import annotations

import pytest
from processes import ROOT, run_python

SHOW = """
import os, sys
assert "torch" not in sys.modules
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""
CLEAN = "import os\nfor name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'): os.environ.pop(name, None)\n"


@pytest.mark.parametrize("module", ["hyperformer", "hyperformer.cli", "hyperformer.settings", "pipelines.settings"])
def test_every_entry_point_limits_spinning_before_pytorch_is_imported(module):
    process = run_python(f"{CLEAN}import {module}\n{SHOW}", cwd=ROOT)
    assert process.stdout == "None 1000\n", process.stderr


@pytest.mark.parametrize(
    ("choice", "expected"),
    [({"OMP_WAIT_POLICY": "active"}, "active None"), ({"GOMP_SPINCOUNT": "10"}, "None 10")],
)
def test_a_users_choice_of_waiting_stays(choice, expected):
    process = run_python(f"{CLEAN}os.environ.update({choice!r})\nimport hyperformer\n{SHOW}", cwd=ROOT)
    assert process.stdout == f"{expected}\n", process.stderr
