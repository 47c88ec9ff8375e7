"""The stages of dvc.yaml list exactly the inputs, parameters, code and outputs that Kedro and the imports imply."""

from __future__ import annotations

import copy
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog, MemoryDataset

from hyperformer.export import bundle
from pipelines.datasets import WorkingFolderDataset
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

ROOT = Path(__file__).parents[3]
BASE = Path("conf/base")
BACKBONE = "data/06_models/backbone"
PARAMETERS = ("parameters.yml", "parameters_tasks.yml")
OUTPUTS = ("outs", "metrics", "plots")


@pytest.fixture(scope="module", autouse=True)
def project() -> None:
    configure_project("pipelines")


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """Return the stages of both dvc.yaml files."""
    files = [ROOT / "dvc.yaml", ROOT / "pipelines" / "dvc.yaml"]
    return {name: stage for file in files for name, stage in yaml.safe_load(file.read_text())["stages"].items()}


@pytest.fixture(scope="module")
def catalog() -> dict[str, Any]:
    return ConfigLoader(conf_source=str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS)["catalog"]


@pytest.fixture
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("hyperformer", "pipelines", exclude_type_checking_imports=True)


def imported_packages(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Return the files and folders under src/hyperformer that a module imports, directly or not."""
    visited, queue = set(), [module]
    while queue:
        current = queue.pop()
        if current not in visited:
            visited.add(current)
            parent = current.rpartition(".")[0]
            queue += [*graph.find_modules_directly_imported_by(current), *([parent] if "." in parent else [])]
    names = {name.split(".")[1] for name in visited if name.startswith("hyperformer.")}
    return {name if (ROOT / "src/hyperformer" / name).is_dir() else f"{name}.py" for name in names}


def expected_entries(name: str, catalog: dict[str, Any], graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Return what a stage of dvc.yaml should list."""
    pipeline, datasets = pipelines[name].only_nodes_with_tags(name), DataCatalog.from_config(catalog)
    code = imported_packages(graph, f"pipelines.{name}")

    def paths(names: set[str]) -> set[str]:
        entries = [datasets.get(entry) for entry in names if not entry.startswith("params:")]
        saved = [dataset for dataset in entries if dataset and not isinstance(dataset, WorkingFolderDataset)]
        return {str(dataset._describe()["filepath"]) for dataset in saved if not isinstance(dataset, MemoryDataset)}

    outs = paths(pipeline.all_outputs())
    deps = paths(pipeline.inputs()) | {f"src/hyperformer/{package}" for package in code}
    modules = graph.find_modules_directly_imported_by(f"pipelines.{name}") | {f"pipelines.{name}"}
    deps |= {f"{module.replace('.', '/')}.py" for module in modules if module.startswith("pipelines.")}
    deps.add("requirements.lock")
    if "backbones" in code and BACKBONE not in outs:  # a checkpoint holds the backbone's name, not the backbone
        deps.add(BACKBONE)
    files = {file.as_posix(): yaml.safe_load((ROOT / file).read_text()) for file in map(BASE.joinpath, PARAMETERS)}
    keys = {entry.removeprefix("params:") for entry in pipeline.inputs() if entry.startswith("params:")}
    more = "" if set(pipeline.nodes) <= set(pipelines["__default__"].nodes) else f" --pipelines {name}"
    return {
        "cmd": {f"kedro run --env base{more} --tags {name}"},
        "deps": deps,
        "params": {f"{file}:{key}" for file, tree in files.items() for key in keys & tree.keys()},
        "outs": outs,
    }


def outputs(stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the outputs of a stage, metrics and plots too, with their options."""
    entries = [entry if isinstance(entry, dict) else {entry: {}} for part in OUTPUTS for entry in stage.get(part, [])]
    return {path: options for entry in entries for path, options in entry.items()}


def working_folders(catalog: dict[str, Any]) -> dict[str, str]:
    """Return the folders that nodes write to while they run, and their names in the catalog."""
    kind = "pipelines.datasets.WorkingFolderDataset"
    return {entry["filepath"]: name for name, entry in catalog.items() if entry["type"] == kind}


def listed_entries(stage: dict[str, Any], catalog: dict[str, Any]) -> dict[str, set[str]]:
    """Return what a stage of dvc.yaml lists, except what its nodes write to working folders."""
    params = [(file, key) for entry in stage.get("params", []) for file, keys in entry.items() for key in keys]
    folders = working_folders(catalog)
    return {
        "cmd": {stage["cmd"]},
        "deps": set(stage["deps"]),
        "params": {f"{file}:{key}" for file, key in params},
        "outs": {path for path in outputs(stage) if str(Path(path).parent) not in folders},
    }


def list_differences(stages: dict[str, Any], catalog: dict[str, Any], graph: grimp.ImportGraph) -> list[str]:
    """Return a line for each entry that a stage lacks or does not use."""
    lines = []
    for name, stage in stages.items():
        right, actual = expected_entries(name, catalog, graph), listed_entries(stage, catalog)
        for part in right:
            lines += [f"{name}: {part} lacks {entry}" for entry in sorted(right[part] - actual[part])]
            lines += [
                f"{name}: {part} has {entry}, which it does not use" for entry in sorted(actual[part] - right[part])
            ]
    return lines


def test_dvc_lists_what_every_stage_reads_makes_and_runs(stages, catalog, graph):
    assert list_differences(stages, catalog, graph) == []


def test_every_pipeline_is_a_stage(stages):
    no_stages = {"transfer", "times"}  # tasks of another environment; measurements of a machine
    assert set(stages) == set(pipelines) - {"__default__"} - no_stages


def test_a_bundles_code_is_what_its_stage_imports(graph):
    assert set(bundle.CODE_PATHS) == imported_packages(graph, "pipelines.export")


def test_dvc_deletes_no_output_before_its_stage_runs(stages):
    """If another run is active, a stage is refused; outputs deleted before that would be missing in the other run."""
    options = {path: options for stage in stages.values() for path, options in outputs(stage).items()}
    assert {path for path in options if not options[path].get("persist")} == set()


def test_what_is_written_while_a_stage_runs_is_in_its_working_folder(stages, catalog):
    written = {name: outputs(stage).keys() - listed_entries(stage, catalog)["outs"] for name, stage in stages.items()}
    assert {name for name, paths in written.items() if paths} == {"train"}
    inputs = pipelines["train"].only_nodes_with_tags("train").inputs()
    assert {working_folders(catalog)[str(Path(path).parent)] for path in written["train"]} <= inputs


def test_each_entry_that_is_removed_is_reported(stages, catalog, graph):
    right = {name: expected_entries(name, catalog, graph) for name in stages}
    for name, stage in stages.items():
        for part in ("deps", *OUTPUTS):
            for entry in stage.get(part, []):
                less = copy.deepcopy(stage)
                less[part].remove(entry)
                if outputs(stage).keys() - outputs(less).keys() <= right[name]["outs"]:
                    assert listed_entries(less, catalog) != right[name], f"{name}: {entry}"
        for number, entry in enumerate(stage.get("params", [])):
            for file, keys in entry.items():
                for key in keys:
                    less = copy.deepcopy(stage)
                    less["params"][number][file].remove(key)
                    assert listed_entries(less, catalog) != right[name], f"{name}: {key}"


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("deps", "src/hyperformer/runtime"),
        ("params", {"conf/base/parameters.yml": ["export"]}),
        ("outs", "data/06_models/more"),
    ],
)
def test_an_entry_that_is_added_is_reported(stages, catalog, graph, part, entry):
    more = copy.deepcopy(stages)
    more["train"][part].append(entry)
    shown = entry if isinstance(entry, str) else "conf/base/parameters.yml:export"
    assert list_differences(more, catalog, graph) == [f"train: {part} has {shown}, which it does not use"]


def test_a_renamed_catalog_entry_is_reported(stages, catalog, graph):
    renamed = {("predicted" if name == "predictions" else name): entry for name, entry in catalog.items()}
    assert list_differences(stages, renamed, graph) == [
        "evaluate: outs has data/07_model_output/predictions, which it does not use",
        "report: deps has data/07_model_output/predictions, which it does not use",
    ]


def test_an_artifact_that_moved_is_reported(stages, catalog, graph):
    moved = copy.deepcopy(catalog)
    moved["tokens"]["filepath"] = "data/05_model_input/ids"
    assert "train: outs lacks data/05_model_input/ids" in list_differences(stages, moved, graph)


def test_no_layer_comes_both_before_and_after_another(catalog):
    """Kedro-Viz shows no layers otherwise."""
    before = defaultdict(set)
    layers = {name: entry["metadata"]["kedro-viz"]["layer"] for name, entry in catalog.items()}
    for node in pipelines["__default__"].nodes:
        for output in node.outputs:
            before[layers[output]] |= {layers[name] for name in node.inputs if name in layers} - {layers[output]}
    order = list(TopologicalSorter(before).static_order())
    assert order == ["raw", "primary", "model_input", "models", "model_output", "export", "reporting"]


def test_an_import_added_across_packages_is_reported(stages, catalog, graph):
    graph.add_import(importer="hyperformer.evaluation", imported="hyperformer.embedded.corpus")
    lines = list_differences(stages, catalog, graph)
    assert "evaluate: deps lacks src/hyperformer/embedded" in lines
    assert not [line for line in lines if line.startswith("preprocess:")]
