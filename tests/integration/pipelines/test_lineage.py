"""From a bundle to its commit through dvc.lock, and from a commit to its bundles through a DVC remote."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import run_python

from hyperformer.core.errors import HyperFormerError
from pipelines.lineage import trace_bundle

MAKE = """
import sys
from pathlib import Path
import yaml
from hyperformer.core.manifest import FORMAT, GRAPH, Manifest
from hyperformer.core.files import sha256
seed = yaml.safe_load(Path("parameters.yml").read_text())["seed"]
for name in ("mood", "order"):
    folder = Path("data/06_models/onnx") / name
    folder.mkdir(parents=True)
    (folder / GRAPH).write_text(f"{Path('data/rows').read_text()} {seed if name == 'mood' else 0}")
    files = {GRAPH: sha256(folder / GRAPH)}
    results = ({}, {}, {}, {}, {}, True)
    card = Manifest(FORMAT, name, "generation", "{text}", None, [], None, 8, 18, "t5", "none", files, *results, {})
    card.write(folder)
"""
STAGES = {
    "rows": {"cmd": "mkdir -p data && echo text > data/rows", "outs": ["data/rows"]},
    "export": {
        "cmd": f"{sys.executable} make.py",
        "deps": ["make.py", "data/rows"],
        "params": [{"parameters.yml": ["seed", "label"]}],
        "outs": ["data/06_models/onnx"],
    },
}
SHARED = {
    "wdir": "..",
    "cmd": "mkdir -p data/06_models/onnx_shared && cp -r data/06_models/onnx/mood data/06_models/onnx_shared && "
    "sed -i s/t5/t6/ data/06_models/onnx_shared/mood/manifest.json",
    "deps": ["data/06_models/onnx"],
    "outs": ["data/06_models/onnx_shared"],
}


def run(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


OTHER = {
    "rows": {"wdir": "../..", "cmd": "mkdir -p data/b && cp examples/rows data/b/rows", "deps": ["examples/rows"]},
    "export": {
        "wdir": "../..",
        "cmd": "mkdir -p data/b/06_models && cp -r data/06_models/onnx data/b/06_models/onnx && "
        "sed -i s/t5/t8/ data/b/06_models/onnx/*/manifest.json",
        "deps": ["data/b/rows", "data/raw.csv", "make.py", "src/code.py"],
        "params": [{"parameters.yml": ["seed"]}],
        "outs": ["data/b/06_models/onnx"],
    },
}
"""Stages of an environment `b`, whose names are also those of stages of the root."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a repository with four commits: bundles of two seeds, on a shared base, and of another environment."""
    folder = tmp_path_factory.mktemp("project")
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "-d", "kept", str(folder.with_name(f"{folder.name} kept")))
    (folder / "make.py").write_text(MAKE)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    for seed in (1, 2):
        (folder / "parameters.yml").write_text(f"seed: {seed}\nlabel: 'no'\n")
        run(folder, "dvc", "repro", "-q")
        shutil.copytree(folder / "data/06_models/onnx", folder.with_name(f"{folder.name} {seed}"))
        commit(folder, f"seed {seed}")
        run(folder, "dvc", "push", "-q")
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"shared": SHARED}}))
    run(folder, "dvc", "repro", "-q", "pipelines/dvc.yaml")
    commit(folder, "shared")
    run(folder, "dvc", "push", "-q")
    add_environment(folder)
    commit(folder, "other")
    run(folder, "dvc", "push", "-q")
    return folder


def add_environment(folder: Path) -> None:
    """Add an environment `b` with rows in git, other rows under DVC and code, and run it."""
    for file in ("examples/rows", "data/raw.csv", "src/code.py"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("b")
    run(folder, "dvc", "add", "-q", "data/raw.csv")
    (folder / "conf" / "b").mkdir(parents=True)
    stages = OTHER | {"rows": OTHER["rows"] | {"outs": ["data/b/rows"]}}
    (folder / "conf" / "b" / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    run(folder, "dvc", "repro", "-q", "conf/b/dvc.yaml")


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", ".")
    run(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", message)


def exported(project: Path, seed: int) -> Path:
    """Return the bundles that the run with a seed exported, copied out of the repository."""
    return project.with_name(f"{project.name} {seed}")


def test_a_bundle_names_the_commit_that_made_it_and_what_it_was_made_from(project):
    commits = run(project, "git", "log", "--reverse", "--format=%h").split()
    for seed in (1, 2):
        lineage = trace_bundle(exported(project, seed) / "mood", project)
        assert (lineage["task"], lineage["commit"]) == ("mood", commits[seed - 1])
        assert lineage["subject"] == f"seed {seed}"
        export, rows = lineage["stages"]["export"], lineage["stages"]["rows"]
        assert export["parameters"] == {"parameters.yml": {"seed": seed, "label": "no"}}
        assert export["command"] == STAGES["export"]["cmd"]
        assert list(export["read"]) == ["data/rows"]
        assert export["read"] == rows["made"]


def test_a_bundle_that_a_later_commit_made_again_belongs_to_the_first_commit(project):
    commits = run(project, "git", "log", "--reverse", "--format=%h").split()
    assert trace_bundle(exported(project, 2) / "order", project)["commit"] == commits[0]


def test_a_stage_of_the_second_file_lists_its_upstream_stages_of_the_first(project):
    lineage = trace_bundle(project / "data/06_models/onnx_shared/mood", project)
    assert lineage["subject"] == "shared"
    assert list(lineage["stages"]) == ["pipelines/dvc.yaml:shared", "export", "rows"]
    assert lineage["reproduce"].endswith(" && dvc repro --pull pipelines/dvc.yaml")


def test_stages_of_an_environment_are_not_mixed_with_those_of_the_same_name(project, tmp_path):
    lineage = trace_bundle(project / "data/b/06_models/onnx/mood", project)
    assert lineage["subject"] == "other"
    assert list(lineage["stages"]) == ["conf/b/dvc.yaml:export", "conf/b/dvc.yaml:rows"]
    export, rows = lineage["stages"].values()
    assert list(export["read"]) == ["data/b/rows", "data/raw.csv"]
    assert list(rows["read"]) == ["examples/rows"]
    assert list(rows["made"]) == ["data/b/rows"]
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    for command in lineage["reproduce"].split(" && "):
        output = run(tmp_path / "clone", *command.split())
    assert "Data and pipelines are up to date" in output
    assert (tmp_path / "clone/data/b/06_models/onnx/mood/manifest.json").is_file()
    assert not (tmp_path / "clone/data/06_models/onnx").exists()  # of another environment


def test_a_commit_gives_back_its_bundles_without_running_a_stage(project, tmp_path):
    lineage = trace_bundle(exported(project, 1) / "mood", project)
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone = tmp_path / "clone"
    assert trace_bundle(exported(project, 1) / "mood", clone) == lineage  # the remote has what the cache lacks
    checkout, repro = (command.split() for command in lineage["reproduce"].split(" && "))
    run(clone, *checkout, "-q")
    assert "Data and pipelines are up to date" in run(clone, *repro)
    for file in (exported(project, 1) / "mood").iterdir():
        assert (clone / "data/06_models/onnx/mood" / file.name).read_bytes() == file.read_bytes()


def test_a_removed_cache_is_restored_by_a_rerun_or_from_a_remote(project, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone, files = tmp_path / "clone", ("dvc.yaml", "pipelines/dvc.yaml")
    run(clone, "dvc", "repro", "-q", *files)
    shutil.rmtree(clone / ".dvc" / "cache")
    shutil.rmtree(clone / "data" / "06_models" / "onnx")
    run(clone, "dvc", "repro", "-q", *files)
    assert run(clone, "git", "status", "--porcelain") == ""  # the bytes are the same, so dvc.lock has not changed
    shutil.rmtree(clone / ".dvc" / "cache")
    run(clone, "dvc", "fetch", "-q")
    assert "up to date" in run(clone, "dvc", "status", *files)


@pytest.mark.parametrize("fault", ["changed", "unknown", "fetch", "remote", "no git"])
def test_a_bundle_without_lineage_is_an_error_with_its_reason(fault, project, tmp_path):
    bundle, folder = tmp_path / "mood", project
    shutil.copytree(exported(project, 1) / "mood", bundle)
    if fault == "changed":
        (bundle / "model.onnx").write_text("another")
        message = "is not the file that was exported"
    elif fault == "unknown":
        manifest = bundle / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"t5"', '"t7"'))
        message = r"matches none of the 4 exports in the git history of dvc\.lock .*Commit the"
    elif fault == "fetch":
        run(tmp_path, "git", "clone", "-q", str(project), "clone")
        folder = tmp_path / "clone"
        run(folder, "dvc", "remote", "modify", "-q", "kept", "url", str(tmp_path / "elsewhere"))
        message = "4 of them are in neither the DVC cache nor the remote: run dvc fetch --all-commits"
    elif fault == "remote":
        run(tmp_path, "git", "clone", "-q", str(project), "clone")
        folder = tmp_path / "clone"
        run(folder, "dvc", "remote", "modify", "-q", "kept", "url", "s3://models/kept")
        message = "DVC cannot read its cache or remote: s3 is supported, but requires 'dvc-s3'"
    else:
        folder = tmp_path
        message = r"cannot read the git history of .*\. Run this command in a clone"
    with pytest.raises(HyperFormerError, match=message):
        trace_bundle(bundle, folder)


def test_the_command_reports_an_error_without_a_traceback(tmp_path):
    result = run_python("import runpy; runpy.run_module('pipelines.lineage', run_name='__main__')", tmp_path)
    message = f"Error: {tmp_path} has no manifest.json; use the folder of an exported task"
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, message)
