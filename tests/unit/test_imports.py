"""Rules on imports between modules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src" / "hyperformer"
BELOW = ("backbones", "methods", "tasks", "runtime", "readers", "settings", "core")
ABOVE = sorted(
    path
    for path in [*LIBRARY.rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]
    if not any(path.is_relative_to(LIBRARY / name) for name in BELOW)
)
FAMILY = {"t5", "mt5", "umt5", "byt5", "flan", "bert", "minilm", "electra", "roberta", "camembert", "encoderbackbone"}


@pytest.mark.parametrize("path", ABOVE, ids=lambda path: path.name)
def test_nothing_above_the_backbones_depends_on_a_backbone_family(path):
    """No module imports a family's module, names a family, or reads the model type."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("hyperformer.backbones.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not str(node.module).startswith("hyperformer.backbones.")
            assert node.module != "transformers" or not any(FAMILY & components(alias.name) for alias in node.names)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            assert name not in ("model_type", "FAMILIES"), name
            assert not FAMILY & components(name), name


def components(name: str) -> set[str]:
    """Return the lowercase components of a snake-case or camel-case name: t5 and backbone for T5Backbone."""
    components = "".join(f"_{letter}" if letter.isupper() else letter for letter in name).split("_")
    return {component.lower() for component in [*components, name]}


def test_the_files_above_the_backbones_are_found():
    assert {"multi_task.py", "finetuning.py", "classifier.py", "train.py"} <= {path.name for path in ABOVE}
    assert components("T5Backbone") & FAMILY
    assert components("t5") & FAMILY
    assert not components("backbone") & FAMILY
