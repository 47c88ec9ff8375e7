"""Dependencies: their licences, the lock file, and the small base installation."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import run_python

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
ELSEWHERE = {"minilm", "mlflow"}
"""Extras that the project's environment does not have."""
REQUIRED = sorted({
    canonicalize_name(requirement.name)
    for group, lines in GROUPS.items()
    for requirement in map(Requirement, lines)
    if group not in ELSEWHERE and requirement.name != "hyperformer"
})  # fmt: skip
FREE = re.compile(r"Apache|BSD|MIT|MPL|Mozilla|PSF|Python Software Foundation|matplotlib")
COPYLEFT = re.compile(r"\b(A|L)?GPL|General Public License")

ANSWER = """
import sys
from hyperformer import cli
from hyperformer.runtime import load
load(sys.argv[1])({"sentence": "the film is wonderful"})
import json
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))))
"""


def licence(name: str) -> str:
    """Return the licence of a package: its expression, else its classifiers, else the start of its text."""
    metadata = importlib.metadata.metadata(name)
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    kinds = [line.split("::")[-1].strip() for line in classifiers]
    return metadata["License-Expression"] or ", ".join(kinds) or (metadata["License"] or "")[:60]


@pytest.mark.parametrize("name", REQUIRED)
def test_each_direct_dependency_has_a_permissive_licence(name):
    text = licence(name)
    assert FREE.search(text), text
    assert not COPYLEFT.search(text), text


def test_the_lock_pins_every_direct_dependency_to_an_allowed_version():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] not in "#-"]
    locked = {canonicalize_name(pinned.name): pinned.specifier for pinned in map(Requirement, lines)}
    assert all(len(pin) == 1 and next(iter(pin)).operator == "==" for pin in locked.values())
    for group, lines in GROUPS.items():
        for requirement in map(Requirement, lines):
            skipped = requirement.marker and not requirement.marker.evaluate()
            if group in ELSEWHERE or requirement.name == "hyperformer" or skipped:
                continue
            (pin,) = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin.version, prereleases=True), f"{requirement}: {pin}"


def test_inference_imports_numpy_onnxruntime_tokenizers_and_nothing_else(bundles):
    done = run_python(ANSWER, bundles / "mood")
    assert done.returncode == 0, done.stderr
    known = {"__main__", "hyperformer", "numpy", "onnxruntime", "tokenizers"}
    implicit = {
        "_distutils_hack",
        "coverage",
        "sitecustomize",
        "usercustomize",
        "a1_coverage",
    }  # imported by Python itself
    assert set(json.loads(done.stdout)) - implicit == known
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == known - {"__main__", "hyperformer"}
