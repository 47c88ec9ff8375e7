"""The wheel, installed into an environment that has the dependencies but not this checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = """
import sys, hyperformer
assert "site-packages" in hyperformer.__file__, hyperformer.__file__
assert not {"torch", "transformers", "onnxruntime"} & sys.modules.keys()
print(hyperformer.load(sys.argv[1])({"sentence": "the film is wonderful"}).label, hyperformer.train.__name__)
"""


def run(*command: object) -> str:
    """Run a command outside the checkout, and return its output."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment that finds the dependencies in this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment")
    (wheel,) = folder.glob("*.whl")
    python = folder / "environment" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = next((folder / "environment" / "lib").glob("*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "environment"


def test_the_wheel_answers_and_offers_training(environment, bundles):
    label, train = run(environment / "bin" / "python", "-c", ASK, bundles / "mood").split()
    assert label in ("negative", "positive")
    assert train == "train"


def test_the_command_of_the_wheel_prints_its_version(environment):
    assert run(environment / "bin" / "hyperformer", "--version") == "hyperformer 0.2.0\n"
