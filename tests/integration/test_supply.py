"""What the project stands on: licences of what it asks for by name, one lock for all, and a small base install."""

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
"""Extras that are installed beside the project's environment, if at all."""
ASKED = sorted({
    canonicalize_name(one.name)
    for group, lines in GROUPS.items()
    for one in map(Requirement, lines)
    if group not in ELSEWHERE and one.name != "hyperformer"
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
    """What a package says of its licence: the expression, or else the classifiers, or else the first words."""
    told = importlib.metadata.metadata(name)
    kinds = [line.split("::")[-1].strip() for line in told.get_all("Classifier") or [] if line.startswith("License ::")]
    return told["License-Expression"] or ", ".join(kinds) or (told["License"] or "")[:60]


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_by_name_is_free_to_use_with_this_project(name):
    said = licence(name)
    assert FREE.search(said), said
    assert not COPYLEFT.search(said), said


def test_the_lock_holds_every_package_that_is_asked_for_in_a_version_that_fits():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] not in "#-"]
    locked = {canonicalize_name(one.name): one.specifier for one in map(Requirement, lines)}
    assert all(len(pin) == 1 and next(iter(pin)).operator == "==" for pin in locked.values())
    for group, lines in GROUPS.items():
        for one in map(Requirement, lines):
            if group in ELSEWHERE or one.name == "hyperformer" or (one.marker and not one.marker.evaluate()):
                continue
            (pin,) = locked[canonicalize_name(one.name)]
            assert one.specifier.contains(pin.version, prereleases=True), f"{one}: {pin}"


def test_an_answer_imports_numpy_onnxruntime_tokenizers_and_nothing_else(bundles):
    done = run_python(ANSWER, bundles / "mood")
    assert done.returncode == 0, done.stderr
    known = {"__main__", "hyperformer", "numpy", "onnxruntime", "tokenizers"}
    started = {"_distutils_hack", "coverage", "sitecustomize", "usercustomize", "a1_coverage"}  # by Python itself
    assert set(json.loads(done.stdout)) - started == known
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == known - {"__main__", "hyperformer"}
