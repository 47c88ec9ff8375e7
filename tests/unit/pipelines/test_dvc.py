"""The stages of every environment list exactly the inputs, settings, code and outputs that they use."""

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

from hyperformer.core.errors import HyperFormerError
from hyperformer.export import bundle
from hyperformer.methods import METHODS
from pipelines.datasets import WorkingFolderDataset
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader
from pipelines.stages import inputs
from pipelines.stages.build import build_files, list_files
from pipelines.stages.imports import ImportGraph, find_modules

ROOT = Path(__file__).parents[3]
OUTPUTS = ("outs", "metrics", "plots")
ENVIRONMENTS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "local")
Stages = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def project(monkeypatch) -> None:
    configure_project("pipelines")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(inputs, "_list_ignored", lambda paths: [])  # it starts git


def read_stages(*files: Path) -> Stages:
    return {name: stage for file in files for name, stage in yaml.safe_load(file.read_text())["stages"].items()}


@pytest.fixture(scope="module")
def every_stage() -> Stages:
    """Return the stages of both dvc.yaml files of base."""
    return read_stages(ROOT / "dvc.yaml", ROOT / "pipelines" / "dvc.yaml")


@pytest.fixture(scope="module")
def stages(every_stage) -> Stages:
    """Return the stages except `settings`, which depends on all code and settings."""
    return {name: stage for name, stage in every_stage.items() if name != "settings"}


def load(env: str) -> ConfigLoader:
    return ConfigLoader(conf_source=str(ROOT / "conf"), env=env, **CONFIG_LOADER_ARGS)


@pytest.fixture(scope="module")
def catalog() -> dict[str, Any]:
    return load("base")["catalog"]


@pytest.fixture
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("hyperformer", "pipelines", exclude_type_checking_imports=True)


def imported_modules(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Return a module and the modules that it imports, directly or not, with their packages."""
    visited, queue = set(), [module]
    while queue:
        current = queue.pop()
        if current not in visited and "." in current:
            visited.add(current)
            queue += [*graph.find_modules_directly_imported_by(current), current.rpartition(".")[0]]
            if current == "hyperformer.methods.registry":  # it imports the classes of methods by name
                queue += [method.model.partition(":")[0] for method in METHODS.values()]
    return visited


def imported_packages(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Return the files and folders under src/hyperformer that a module imports, directly or not."""
    modules = imported_modules(graph, module)
    names = {name.split(".")[1] for name in modules if name.startswith("hyperformer.")}
    return {name if (ROOT / "src/hyperformer" / name).is_dir() else f"{name}.py" for name in names}


def expand(deps: set[str]) -> set[str]:
    """Return dependencies with each module, and each folder of modules, replaced by the names of its modules."""
    modules = {file.as_posix(): name for name, file in find_modules().items()}
    entries = set()
    for dep in deps:
        inside = {name for file, name in modules.items() if file == dep or file.startswith(f"{dep}/")}
        entries |= inside or {dep}
    return entries


def expected_entries(name: str, catalog: dict[str, Any], graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Return what a stage of dvc.yaml should list, with code as names of modules."""
    pipeline, datasets = pipelines[name].only_nodes_with_tags(name), DataCatalog.from_config(catalog)
    code = imported_modules(graph, f"pipelines.{name}")

    def paths(names: set[str]) -> set[str]:
        entries = [datasets.get(entry) for entry in names if not entry.startswith("params:")]
        saved = [dataset for dataset in entries if dataset and not isinstance(dataset, WorkingFolderDataset)]
        return {str(dataset._describe()["filepath"]) for dataset in saved if not isinstance(dataset, MemoryDataset)}

    outs = paths(pipeline.all_outputs())
    deps = paths(pipeline.inputs()) | code | {"requirements.lock"}
    settings, checkpoint = catalog["settings"]["filepath"], catalog["checkpoint"]["filepath"]
    env = settings.split("/")[1] if settings.count("/") == 2 else "base"
    if "hyperformer.report.page" in code:
        deps.add("src/hyperformer/report/templates")
    if "hyperformer.backbones" in code and "pretrained_backbone" not in pipeline.all_outputs():
        # A checkpoint holds the backbone's name, not the backbone.
        deps |= {path for path in [load(env)["parameters"]["backbone"]["path"]] if Path(path).is_dir()}
    keys = {entry.removeprefix("params:") for entry in pipeline.inputs() if entry.startswith("params:")}
    waits = {f"{checkpoint}/configuration.json:backbone.path"} if name == "baselines" else set()
    more = "" if set(pipeline.nodes) <= set(pipelines["__default__"].nodes) else f" --pipelines {name}"
    return {
        "cmd": {f"kedro run --env {env}{more} --tags {name}"},
        "deps": deps,
        "params": {f"{settings}:{key}" for key in keys} | waits,
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
        "deps": expand(set(stage["deps"])),
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


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_dvc_lists_what_every_stage_reads_makes_and_runs(env, graph):
    """An environment without dvc.yaml may be refused, for a reason that `test_versioning.py` lists."""
    files = [file for file in list_files(env) if file.exists()]
    try:
        built = {name: stage for content in build_files(env).values() for name, stage in content["stages"].items()}
    except HyperFormerError:
        if files:
            raise
        return
    assert built == (read_stages(*files) if files else built)
    del built["settings"]
    rows = [dep for dep in built["preprocess"]["deps"] if dep.endswith((".csv", ".tsv", ".jsonl", ".parquet", ".gz"))]
    catalog = load(env)["catalog"]
    expected = {f"preprocess: deps has {row}, which it does not use" for row in rows}
    if "language" not in built:  # no task reads its rows
        expected.add(f"preprocess: deps lacks {catalog['language_rows']['filepath']}")
    assert set(list_differences(built, catalog, graph)) == expected


def test_every_pipeline_is_a_stage(every_stage):
    no_stages = {"transfer", "times"}  # tasks of another environment; measurements of a machine
    assert set(every_stage) == set(pipelines) - {"__default__"} - no_stages


def test_the_settings_depend_on_all_code_and_settings(every_stage):
    stage = every_stage["settings"]
    conf = {f"conf/base/{name}" for name in ("catalog.yml", "parameters.yml", "parameters_tasks.yml")}
    assert expand(set(stage["deps"])) == {*find_modules(), *conf, "requirements.lock"}
    assert outputs(stage) == {"data/settings.yml": {"persist": True}}
    assert stage["cmd"] == "kedro run --env base --pipelines settings --tags settings"


def test_a_module_is_imported_if_code_or_a_string_names_it(tmp_path, monkeypatch):
    package = tmp_path / "pipelines"
    package.mkdir()
    codes = {
        "__init__": "from pipelines import unused",
        "start": "def later():\n    from pipelines import first\nNAME = 'pipelines.second:Class'\n",
        "first": "from . import third\nif TYPE_CHECKING:\n import pipelines.unused\nelse:\n import pipelines.fourth",
        "second": "'Prose about pipelines.unused is no import.'",
        "third": "import pipelines.inner.module",
        "fourth": "from pipelines.first import name",
        "unused": "",
        "inner/__init__": "from .other import name",
        "inner/module": "",
        "inner/other": "",
    }
    for name, code in codes.items():
        (package / f"{name}.py").parent.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(code)
    for name in ("inner/text/a.txt", "dvc.yaml"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src" / "hyperformer").mkdir(parents=True)
    code = ["pipelines/first.py", "pipelines/fourth.py", "pipelines/inner", "pipelines/second.py", "pipelines/start.py"]
    assert ImportGraph().list_code("pipelines.start") == [*code, "pipelines/third.py"]
    (package / "inner" / "more.py").touch()
    names = ["__init__.py", "module.py", "other.py", "text"]
    code[2:3] = [f"pipelines/inner/{name}" for name in names]
    assert ImportGraph().list_code("pipelines.start") == [*code, "pipelines/third.py"]


def test_a_bundles_code_is_what_its_stage_imports(graph):
    assert set(bundle.CODE_PATHS) == imported_packages(graph, "pipelines.export")


def test_dvc_deletes_no_output_before_its_stage_runs(every_stage):
    """If another run is active, a stage is refused; outputs deleted before that would be missing in the other run."""
    options = {path: options for stage in every_stage.values() for path, options in outputs(stage).items()}
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
        ("deps", "src/hyperformer/runtime/router.py"),
        ("params", {"data/settings.yml": ["export"]}),
        ("outs", "data/06_models/more"),
    ],
)
def test_an_entry_that_is_added_is_reported(stages, catalog, graph, part, entry):
    more = copy.deepcopy(stages)
    more["train"][part].append(entry)
    shown = "hyperformer.runtime.router" if part == "deps" else entry
    shown = shown if isinstance(shown, str) else "data/settings.yml:export"
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
    assert "evaluate: deps lacks hyperformer.embedded.corpus" in lines
    assert not [line for line in lines if line.startswith("preprocess:")]
