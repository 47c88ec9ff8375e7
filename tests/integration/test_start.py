"""Import contracts, checked by import-linter and in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import ROOT, run_python


def test_imports_keep_the_contracts():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_core_modules_and_the_runtime_start_without_torch():
    code = (
        "import sys, hyperformer.settings, hyperformer.core.text, hyperformer.core.manifest, hyperformer.tasks, "
        "hyperformer.cli\nprint([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
