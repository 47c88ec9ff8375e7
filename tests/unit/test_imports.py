"""Who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src" / "hyperformer"
BELOW = ("backbones", "methods", "tasks", "runtime", "config.py", "types.py", "text.py", "manifest.py", "progress.py")
ABOVE = sorted(
    path
    for path in [*LIBRARY.rglob("*.py"), *(ROOT / "pipelines").glob("*.py")]
    if not any(path.is_relative_to(LIBRARY / name) for name in BELOW)
)
FAMILY = {"t5", "mt5", "umt5", "byt5", "flan", "bert", "minilm", "electra", "roberta", "camembert", "encoderbackbone"}


@pytest.mark.parametrize("path", ABOVE, ids=lambda path: path.name)
def test_nothing_above_the_backbones_asks_which_family_one_is(path):
    """Neither by importing a family's file, nor by a name of its own, nor by what its configuration calls it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("hyperformer.backbones.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not str(node.module).startswith("hyperformer.backbones.")
            assert node.module != "transformers" or not any(FAMILY & parts(alias.name) for alias in node.names)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            assert name not in ("model_type", "FAMILIES"), name
            assert not FAMILY & parts(name), name


def parts(name: str) -> set[str]:
    """The words of a name, also of one in capitals: T5Backbone is t5 and backbone."""
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in name).split("_")
    return {word.lower() for word in [*words, name]}


def test_the_files_above_the_backbones_are_found():
    assert {"model.py", "finetuning.py", "classifier.py", "train.py"} <= {path.name for path in ABOVE}
    assert parts("T5Backbone") & FAMILY
    assert parts("t5") & FAMILY
    assert not parts("backbone") & FAMILY
