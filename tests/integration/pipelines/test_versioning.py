"""An environment with its own rows and backbone under DVC: what a change reruns, and what a clone gets back."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.framework.project import configure_project
from toys import toy_sentences

from hyperformer.core.errors import HyperFormerError
from pipelines import settings_file
from pipelines.config_loader import ConfigLoader
from pipelines.lineage import trace_bundle
from pipelines.settings import CONFIG_LOADER_ARGS
from pipelines.stages import check_stages, write_stages

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of pygtrie, in DVC
ROOT = Path(__file__).parents[3]
COPIED = ("conf/base", "conf/logging.yml", "pipelines", "src", "pyproject.toml", "requirements.lock", ".telemetry")
CHAIN, OPTIONAL = "conf/mine/dvc.yaml", "conf/mine/optional/dvc.yaml"
MODEL = {"train", "evaluate", "parameter_counts", "baselines", "export"}
"""Stages that read the backbone."""
TASK = {
    "text": "{text}",
    "kind": "classification",
    "label_column": "label",
    "labels": {0: "bad", 1: "good"},
    "metrics": ["accuracy"],
    "splits": {"validation": "hold_out_12", "test": "hold_out_12"},
}
SETTINGS = {
    "seed": 1,
    "backbone": {"path": "examples/backbone", "max_source_tokens": 32, "max_target_tokens": 8},
    "training": {
        "steps": 4,
        "batch_size": 8,
        "learning_rate": 1.0e-3,
        "warmup_steps": 1,
        "label_smoothing": 0.0,
        "precision": "fp32",
        "temperature": 10,
        "evaluate_every": 2,
        "validation_rows": 10,
        "patience": None,
    },
    "export": {"opset": 18, "tolerance": 1.0e-4, "allow_below_majority": ["mood", "tone"]},  # 4 steps are too few
    "tasks": {"mood": {"source": {"path": "examples/mood"}, **TASK}, "tone": {**TASK}},
    "data": {"source": "data/mine/01_raw/tone"},
}


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder, with the code of the folder, and return its output."""
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}:{folder}", "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    return result.stdout + result.stderr


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", ".")
    run(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", message)


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *((row["sentence"], row["label"]) for row in rows)])


def edit(file: str, change: Callable[[Any], Any]) -> None:
    """Change a YAML file in place."""
    content = yaml.safe_load(Path(file).read_text())
    change(content)
    Path(file).write_text(yaml.safe_dump(content))


def set_value(path: str, value: Any, file: str = "conf/mine/parameters.yml") -> None:
    *blocks, name = path.split(".")

    def change(content: Any) -> None:
        for block in blocks:
            content = content[block]
        content[name] = value

    edit(file, change)


def append(file: str, text: str) -> None:
    with Path(file).open("a") as stream:
        stream.write(text)


@pytest.fixture(scope="module")
def project(tmp_path_factory, backbone_folder) -> Path:
    """Return a repository whose environment `mine` has its stages and toy outputs of them."""
    configure_project("pipelines")
    folder = make_project(tmp_path_factory.mktemp("project"), backbone_folder)
    with contextlib.chdir(folder):
        record_toy_outputs()
    return folder


def make_project(folder: Path, backbone_folder: Path) -> Path:
    """Make a repository with an environment `mine`: one task's rows are in git, another's are tracked by DVC."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "conf" / "local").mkdir()
    (folder / "conf" / "mine").mkdir()
    (folder / "conf" / "mine" / "parameters.yml").write_text(yaml.safe_dump(SETTINGS))
    shutil.copytree(backbone_folder, folder / "examples" / "backbone")
    write_rows(folder / "examples" / "mood", toy_sentences()[:36])
    write_rows(folder / "data" / "mine" / "01_raw" / "tone", toy_sentences()[36:])
    for file in ("dvc.lock", "pipelines/dvc.lock"):
        (folder / file).unlink(missing_ok=True)
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "config", "core.analytics", "false")
    run(folder, "dvc", "add", "-q", "data/mine/01_raw/tone")
    commit(folder, "start")
    return folder


@pytest.fixture
def mine(project, monkeypatch) -> Iterator[Path]:
    """Change to the project, in which DVC has recorded toy outputs of all stages; undo the test's changes to files."""
    monkeypatch.chdir(project)
    files = {file: file.read_bytes() for file in list_sources()}
    yield project
    for file in list_sources():
        if file not in files:
            file.unlink()
    for file, content in files.items():
        if not file.exists() or file.read_bytes() != content:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)


def list_sources() -> list[Path]:
    """Return the files that tests change."""
    files = [Path("data/mine/settings.yml"), *Path("data/mine/01_raw").rglob("*.csv"), *Path().glob("**/dvc.yaml")]
    return files + [file for name in ("conf", "examples", "src") for file in Path(name).rglob("*") if file.is_file()]


def write_settings() -> None:
    """Write the resolved settings, as the stage `settings` does."""
    loader = ConfigLoader(conf_source="conf", env="mine", **CONFIG_LOADER_ARGS)
    Path("data/mine").mkdir(parents=True, exist_ok=True)
    Path("data/mine/settings.yml").write_text(settings_file.write_settings(loader["parameters"]))


def list_changed() -> set[str]:
    """Return the names of the stages of `mine` that DVC would run because of what they read."""
    from dvc.repo import Repo

    with Repo() as repo:
        status = repo.status(targets=[CHAIN, OPTIONAL])
    return {stage.rpartition(":")[2] for stage in status}


def record_toy_outputs() -> None:
    """Write the stages and toy outputs of each, and let DVC record them as after a run."""
    from dvc.repo import Repo

    write_stages("mine")
    write_settings()
    for file in (CHAIN, OPTIONAL):
        for stage in yaml.safe_load(Path(file).read_text())["stages"].values():
            outs = [path for part in ("outs", "metrics", "plots") for entry in stage.get(part, []) for path in entry]
            for path in map(Path, outs):
                target = path if path.suffix else path / "configuration.json"
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.name != "settings.yml":
                    target.write_text('{"backbone": {"path": "examples/backbone"}}')
    with Repo() as repo:
        for file in (CHAIN, OPTIONAL):
            repo.commit(file, force=True)


CHANGES: dict[str, tuple[Callable[[], None], set[str], set[str]]] = {
    "a row in git": (lambda: append("examples/mood/train.csv", "fine,1\n"), {"preprocess"}, {"settings", *MODEL}),
    "a label": (
        lambda: set_value("tasks.mood.labels", {0: "poor", 1: "good"}),
        {"settings", "preprocess", "train", "parameter_counts", "baselines", "report"},
        set(),
    ),
    "a template": (
        lambda: set_value("tasks.mood.text", "text: {text}"),
        {"settings", "preprocess", "train", "parameter_counts", "baselines", "report"},
        set(),
    ),
    "the backbone": (
        lambda: append("examples/backbone/config.json", "\n"),
        MODEL,
        {"settings", "preprocess", "report"},
    ),
    "a training setting": (
        lambda: set_value("training.learning_rate", 2.0e-3),
        {"settings", "train"},
        {"preprocess", "evaluate", "parameter_counts", "baselines", "export", "report"},
    ),
    "an export setting": (
        lambda: set_value("export.tolerance", 1.0e-3),
        {"settings", "export"},
        {"preprocess", "train", "evaluate", "parameter_counts", "baselines"},
    ),
    "the seed": (
        lambda: set_value("seed", 2),
        {"settings", "preprocess", "train", "baselines"},
        {"evaluate", "parameter_counts", "export"},
    ),
    "a line of code": (
        lambda: append("src/hyperformer/report/svg.py", "# a comment\n"),
        {"settings", "report"},
        {"preprocess", *MODEL},
    ),
    "code that no stage uses": (
        lambda: append("src/hyperformer/serving/triton.py", "# a comment\n"),
        {"settings"},
        {"preprocess", "report", *MODEL},
    ),
    "a value of base that the environment overrides": (
        lambda: set_value("training.learning_rate", 3.0e-3, "conf/base/parameters.yml"),
        {"settings"},
        {"preprocess", "report", *MODEL},
    ),
}
"""Kinds of change: the change, the stages that it reruns, and stages that it does not; stages after them may follow."""


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_reruns_the_stages_that_read_it(mine, kind):
    change, rerun, unaffected = CHANGES[kind]
    change()
    write_settings()
    changed = list_changed()
    assert (rerun - changed, unaffected & changed) == (set(), set())
    check_stages("mine")


def test_a_row_that_dvc_tracks_reruns_the_preparation_of_rows(mine):
    append("data/mine/01_raw/tone/train.csv", "fine,1\n")
    assert list_changed() == {"preprocess"}


def test_another_task_needs_other_stages_and_reruns_what_reads_tasks(mine):
    write_rows(Path("examples/more"), toy_sentences()[:36])
    set_value("tasks.more", {"source": {"path": "examples/more"}, **TASK})
    with pytest.raises(HyperFormerError, match=r"is out of date \(.*preprocess.*lacks examples/more/train\.csv\)"):
        check_stages("mine")
    write_stages("mine")
    write_settings()
    assert {"settings", "preprocess", "train", "baselines", "report"} <= list_changed()
    assert "evaluate" not in list_changed()


def test_stages_are_those_of_base_without_the_embedded_rows_and_the_pretraining(mine):
    stages = yaml.safe_load(Path(CHAIN).read_text())["stages"]
    write_stages("base")
    base = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    assert list(stages) == [name for name in base if name not in ("language", "pretrain")]
    deps = stages["preprocess"]["deps"]
    assert {"examples/mood/train.csv", "data/mine/01_raw/tone/train.csv"} <= set(deps)
    assert "data/mine/01_raw/embedded" not in deps
    assert str(mine) not in Path(CHAIN).read_text() + Path(OPTIONAL).read_text()
    assert list(yaml.safe_load(Path(OPTIONAL).read_text())["stages"]) == ["shared_base", "data_profile"]


def test_writing_the_stages_again_changes_no_byte(mine):
    before = [Path(file).read_bytes() for file in (CHAIN, OPTIONAL)]
    assert [str(file) for file in write_stages("mine")] == [CHAIN, OPTIONAL]
    assert [Path(file).read_bytes() for file in (CHAIN, OPTIONAL)] == before


def test_stages_that_are_out_of_date_are_refused_with_the_first_difference(mine):
    append("src/hyperformer/evaluation.py", "\nfrom hyperformer.embedded import lexicon  # noqa\n")
    message = (
        "conf/mine/dvc.yaml is out of date (stages.train.deps: it lacks src/hyperformer/embedded/__init__.py); "
        "expected the stages of the current settings and code. Run kedro dvc --env mine."
    )
    with pytest.raises(HyperFormerError, match=re.escape(message)):
        check_stages("mine")
    write_stages("mine")
    check_stages("mine")
    edit(OPTIONAL, lambda content: content["stages"]["data_profile"].update(cmd="true"))
    with pytest.raises(HyperFormerError, match=r"optional/dvc\.yaml is out of date \(.*'true' instead of 'kedro run"):
        check_stages("mine")


def test_an_environment_without_stages_is_not_checked(mine):
    shutil.rmtree("conf/mine/optional")
    Path(CHAIN).unlink()
    set_value("backbone.path", "/nowhere")
    check_stages("mine")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "tasks.mood.source.path",
            "../elsewhere",
            "outside of this repository.*or copy it to data/mine/01_raw/mood and ",
        ),
        ("tasks.mood.source.path", "{mine}/examples/mood", "'tasks.mood.source.path'.*Change it to 'examples/mood'"),
        ("data.source", "{mine}/data/mine/01_raw/tone", "'data.source' .*Change it to 'data/mine/01_raw/tone'"),
        ("backbone.path", "../elsewhere", "outside of this repository.*dvc add data/mine/06_models/backbone"),
        ("backbone.path", "data/backbone", "'backbone.path' is 'data/backbone', which does not exist"),
        ("backbone.path", "user/name", r"'backbone\.revision' is None; expected a commit of user/name on the Hub"),
        ("tasks.mood.source", {"path": "user/name", "revision": "main"}, r"tasks\.mood\.source\.revision' is 'main'"),
        ("tasks.mood.source.path", "data/ignored", r"train\.csv .* is ignored by git and not tracked by DVC.*dvc add"),
    ],
)
def test_an_input_that_a_clone_would_lack_is_refused(mine, path, value, message):
    for folder in ("../elsewhere", "data/ignored"):
        write_rows(Path(folder), toy_sentences())
    set_value(path, value.format(mine=mine) if isinstance(value, str) else value)
    set_value("preset", "t5")
    with pytest.raises(HyperFormerError, match=message):
        write_stages("mine")


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("glue", r"'tasks\.cola\.source\.revision' is None"),
        ("glue_transfer", r"'tasks\.scitail\.source\.revision' is None"),
        ("minilm", r"'tasks\.cola\.source\.revision' is None"),
        ("questions", "'data/minilm/06_models/backbone', which does not exist"),
        ("test", "'data/test/06_models/backbone', which does not exist"),
        ("local", "private to one machine"),
        ("nowhere", "the folder conf/nowhere does not exist"),
    ],
)
def test_an_environment_whose_inputs_a_clone_would_lack_is_refused(mine, env, reason):
    if (ROOT / "conf" / env).is_dir():
        shutil.copytree(ROOT / "conf" / env, f"conf/{env}", dirs_exist_ok=True)
    shutil.copytree(ROOT / "examples" / "questions", "examples/questions", dirs_exist_ok=True)
    Path("data/06_models/backbone").mkdir(parents=True, exist_ok=True)
    Path("data/06_models/backbone/config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(HyperFormerError, match=reason):
        write_stages(env)


def test_a_file_that_dvc_tracks_may_be_a_link_into_a_cache_elsewhere(mine, tmp_path):
    file = Path("data/mine/01_raw/tone/train.csv")
    cached = shutil.move(file, tmp_path / "cached")
    file.symlink_to(cached)
    write_stages("mine")
    file.unlink()


@pytest.mark.parametrize("content", ["stages: [", "stages: {a: {}}"])
def test_a_damaged_file_of_dvc_is_named(mine, content):
    Path("conf/mine/optional/dvc.yaml").write_text(content)
    with pytest.raises(HyperFormerError, match=r"DVC cannot read .*conf/mine/optional/dvc\.yaml"):
        write_stages("mine")


def test_pinned_sources_on_the_hub_are_accepted_and_are_part_of_the_settings(mine):
    set_value("tasks.mood.source", {"path": "user/name", "revision": "0" * 40})
    set_value("backbone", {**SETTINGS["backbone"], "path": "user/name", "revision": "1" * 40})
    set_value("preset", "t5")
    write_stages("mine")
    deps = [dep for stage in yaml.safe_load(Path(CHAIN).read_text())["stages"].values() for dep in stage["deps"]]
    assert not [dep for dep in deps if dep.startswith(("examples", "user"))]


def test_baselines_run_after_the_training(mine):
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with Repo() as repo:
        steps = plan_repro(get_active_graph(repo.index.graph), repo.stage.collect(CHAIN))
    names = [step.addressing.rpartition(":")[2] for step in steps]
    assert names.index("train") < names.index("baselines")
    assert names.index("evaluate") < names.index("export") < names.index("report")


def test_artifacts_name_the_checkpoint_and_the_bundles(mine):
    from dvc.repo import Repo

    with Repo() as repo:
        paths = {name: repo.artifacts.get_path(f"conf/mine:{name}") for name in ("checkpoint", "bundles")}
    assert paths == {"checkpoint": "data/mine/06_models/checkpoint", "bundles": "data/mine/06_models/onnx"}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_runs_repeat_only_what_a_change_affects_and_a_clone_has_nothing_to_do(tmp_path, backbone_folder, monkeypatch):
    folder = make_project(tmp_path / "project", backbone_folder)
    monkeypatch.chdir(folder)
    run(folder, "kedro", "dvc", "--env", "mine")
    run(folder, "dvc", "remote", "add", "-q", "-d", "kept", str(tmp_path / "kept"))
    stages = list(yaml.safe_load(Path(CHAIN).read_text())["stages"])
    assert repro(folder) == stages
    assert repro(folder) == []
    commit(folder, "first")
    for kind, (change, rerun, _) in CHANGES.items():
        allowed = rerun.union(*map(list_downstream, rerun - {"settings"}))  # most settings keep their values
        change()
        ran = set(repro(folder))
        assert rerun <= ran <= allowed, kind
    commit(folder, "last")
    run(folder, "dvc", "push", "-q")
    run(tmp_path, "git", "clone", "-q", str(folder), "clone")
    clone, bundle = tmp_path / "clone", folder / "data/mine/06_models/onnx/mood"
    assert "Running stage" not in run(clone, "dvc", "repro", "--pull", CHAIN)
    assert repro(clone) == []
    assert run(clone, "git", "status", "--porcelain") == ""
    lineage = trace_bundle(bundle, clone)
    assert lineage["subject"] == "last"
    assert lineage["stages"][f"{CHAIN}:export"]["parameters"]["data/mine/settings.yml"]["export"]["tolerance"] == 1.0e-3
    read = lineage["stages"][f"{CHAIN}:preprocess"]["read"]
    assert {"examples/mood/train.csv", "data/mine/01_raw/tone/train.csv"} <= read.keys()
    for command in lineage["reproduce"].split(" && "):
        output = run(clone, *command.split())
    assert "Data and pipelines are up to date" in output
    tag = ("tag", "-am", "x", "conf/mine=bundles@v1.0.0")
    run(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", *tag)
    run(folder, "dvc", "artifacts", "get", "-q", ".", "conf/mine:bundles", "-o", str(tmp_path / "bundles"))
    assert (tmp_path / "bundles" / "mood" / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


def repro(folder: Path) -> list[str]:
    """Run the stages of `mine` that have changed, and return their names."""
    return re.findall(rf"Running stage '{CHAIN}:(\w+)'", run(folder, "dvc", "repro", CHAIN))


def list_downstream(name: str) -> set[str]:
    """Return the stages that depend on a stage, directly or not."""
    from dvc.repo import Repo
    from networkx import ancestors

    with Repo() as repo:
        (stage,) = repo.stage.collect(f"{CHAIN}:{name}")
        return {other.name for other in ancestors(repo.index.graph, stage)}


def test_hyperformer_init_tracks_copied_files_and_writes_the_stages(project, tmp_path):
    write_rows(tmp_path / "mood", toy_sentences())
    command = (sys.executable, "-m", "hyperformer.cli", "init", str(tmp_path / "mood"), "--env", "fresh")
    output = run(project, *command, "--backbone", "examples/backbone")
    assert "tracked data/fresh/01_raw/mood with DVC: commit the .dvc files beside them" in output
    assert (project / "data/fresh/01_raw/mood.dvc").is_file()
    with contextlib.chdir(project):
        check_stages("fresh")
        stages = yaml.safe_load(Path("conf/fresh/dvc.yaml").read_text())["stages"]
    assert "data/fresh/01_raw/mood/train.csv" in stages["preprocess"]["deps"]
    # what fails leaves nothing: the backbone of the next environment is not in the repository
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    result = subprocess.run(
        [*command[:-1], "other", "--backbone", str(tmp_path)], cwd=project, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "kedro dvc --env other failed" in result.stderr
    for left in ("conf/other", "data/other"):
        assert not (project / left).exists()
