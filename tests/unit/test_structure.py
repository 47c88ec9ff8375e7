"""Modules are short, imports have no cycles, and the layers of CONTRIBUTING.md are those of import-linter."""

from __future__ import annotations

import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src" / "hyperformer"
MAX_LINES = 350


def parent_of(module: str) -> str:
    """Return the package of a module; empty for a root package."""
    return module.rpartition(".")[0]


def find_cycle(graph: grimp.ImportGraph) -> list[str]:
    """Return the modules of an import cycle, the first of them again at the end; empty if there is no cycle.

    An import of a module also runs the `__init__` of each of its packages. This counts as an import of these packages,
    except of those that contain the importing module: their `__init__` is already running.
    """
    imports: dict[str, set[str]] = {}
    for importer in graph.modules:
        imports[importer] = set()
        for module in graph.find_modules_directly_imported_by(importer):
            imports[importer].add(module)
            package = parent_of(module)
            while package and not f"{importer}.".startswith(f"{package}."):
                imports[importer].add(package)
                package = parent_of(package)
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def make_graph(*imports: tuple[str, str]) -> grimp.ImportGraph:
    """Make a graph of imports, each as (importer, imported)."""
    graph = grimp.ImportGraph()
    for importer, imported in imports:
        graph.add_import(importer=importer, imported=imported)
    return graph


def read_layers(text: str) -> list[list[str]]:
    """Return the modules of each layer in the fenced block under the heading "Layers", highest layer first.

    A line that starts with spaces continues the layer above it.
    """
    block = re.search(r"^## Layers\n```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block
    layers: list[list[str]] = []
    for line in block[1].splitlines():
        number, modules = re.match(r"(\d| )  (\S+(?: [|:] \S+)*)", line).groups()
        if number != " ":
            layers.append([])
        layers[-1] += split_layer(modules)
    return layers


def split_layer(layer: str) -> list[str]:
    """Return the modules of a layer of an import-linter contract."""
    return re.split(r" [|:] ", layer)


def test_modules_are_short():
    lines = {path.relative_to(LIBRARY).as_posix(): path.read_bytes().count(b"\n") for path in LIBRARY.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_imports_have_no_cycle():
    assert find_cycle(grimp.build_graph("hyperformer", exclude_type_checking_imports=True, cache_dir=None)) == []


@pytest.mark.parametrize(
    ("imports", "cycle"),
    [
        ([("p.a", "p.b"), ("p.b", "p.a")], {"p.a", "p.b"}),
        ([("p.x", "p.x.a"), ("p.x.a", "p.x")], {"p.x", "p.x.a"}),  # a module imports its package
        ([("p.x", "p.x.a"), ("p.x.a", "p.y.b"), ("p.y", "p.x.c")], {"p.x", "p.x.a", "p.y"}),  # p.y.b runs p.y first
        ([("p.x", "p.x.a"), ("p.x.a", "p.x.b")], set()),
        ([("p.x", "p.x.a"), ("p.x.a", "p.y.b"), ("p.y", "p.y.b")], set()),
    ],
)
def test_a_cycle_is_found(imports, cycle):
    assert set(find_cycle(make_graph(*imports))) == cycle


def test_the_documented_layers_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = {contract["id"]: contract.get("layers") for contract in contracts}
    documented = read_layers((ROOT / "CONTRIBUTING.md").read_text())
    assert documented == [["pipelines/"], *map(split_layer, checked["layers"])]
