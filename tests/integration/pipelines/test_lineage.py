"""From a bundle to its commit through dvc.lock, and from the commit to the bundle through a remote."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import run_python

from hyperformer.types import HyperFormerError
from pipelines.lineage import lineage

MAKE = """
import sys
from pathlib import Path
import yaml
from hyperformer.manifest import FORMAT, GRAPH, Manifest, sha256
seed = yaml.safe_load(Path("parameters.yml").read_text())["seed"]
for name in ("mood", "order"):
    folder = Path("data/06_models/onnx") / name
    folder.mkdir(parents=True)
    (folder / GRAPH).write_text(f"{Path('data/rows').read_text()} {seed if name == 'mood' else 0}")
    files = {GRAPH: sha256(folder / GRAPH)}
    Manifest(FORMAT, name, "generation", "{text}", [], None, 8, 18, "t5", "none", files, {}, {}, {}, {}).write(folder)
"""
STAGES = {
    "rows": {"cmd": "mkdir -p data && echo text > data/rows", "outs": ["data/rows"]},
    "export": {
        "cmd": f"{sys.executable} make.py",
        "deps": ["make.py", "data/rows"],
        "params": [{"parameters.yml": ["seed"]}],
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


def run(place: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository with three commits: the first one's bundles, others by another seed, and those on a shared base."""
    place = tmp_path_factory.mktemp("project")
    run(place, "git", "init", "-q")
    run(place, "dvc", "init", "-q")
    run(place, "dvc", "remote", "add", "-q", "-d", "kept", str(place.with_name(f"{place.name} kept")))
    (place / "make.py").write_text(MAKE)
    (place / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    for seed in (1, 2):
        (place / "parameters.yml").write_text(f"seed: {seed}\n")
        run(place, "dvc", "repro", "-q")
        shutil.copytree(place / "data/06_models/onnx", place.with_name(f"{place.name} {seed}"))
        commit(place, f"seed {seed}")
        run(place, "dvc", "push", "-q")
    (place / "pipelines").mkdir()
    (place / "pipelines" / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"shared": SHARED}}))
    run(place, "dvc", "repro", "-q", "pipelines/dvc.yaml")
    commit(place, "shared")
    run(place, "dvc", "push", "-q")
    return place


def commit(place: Path, told: str) -> None:
    run(place, "git", "add", ".")
    run(place, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", told)


def made(project: Path, seed: int) -> Path:
    """What the run by a seed exported, as somebody has it elsewhere."""
    return project.with_name(f"{project.name} {seed}")


def test_a_bundle_names_the_commit_that_made_it_and_what_it_was_made_from(project):
    commits = run(project, "git", "log", "--reverse", "--format=%h").split()
    for seed in (1, 2):
        found = lineage(made(project, seed) / "mood", project)
        assert (found["task"], found["commit"]) == ("mood", commits[seed - 1])
        assert found["subject"] == f"seed {seed}"
        export, rows = found["stages"]["export"], found["stages"]["rows"]
        assert export["parameters"] == {"parameters.yml": {"seed": seed}}
        assert export["command"] == STAGES["export"]["cmd"]
        assert list(export["read"]) == ["data/rows"]
        assert export["read"] == rows["made"]


def test_bytes_that_a_later_commit_made_again_are_the_first_ones(project):
    commits = run(project, "git", "log", "--reverse", "--format=%h").split()
    assert lineage(made(project, 2) / "order", project)["commit"] == commits[0]


def test_a_stage_of_the_other_file_and_what_it_read_of_the_first_one(project):
    found = lineage(project / "data/06_models/onnx_shared/mood", project)
    assert found["subject"] == "shared"
    assert list(found["stages"]) == ["shared", "export", "rows"]


def test_from_a_commit_back_to_its_bundles_with_nothing_to_do(project, tmp_path):
    found = lineage(made(project, 1) / "mood", project)
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone = tmp_path / "clone"
    assert lineage(made(project, 1) / "mood", clone) == found  # the remote knows what the cache does not
    checkout, pull, repro = (words.split() for words in found["again"].split(" && "))
    run(clone, *checkout, "-q")
    run(clone, *pull)
    assert "Data and pipelines are up to date" in run(clone, *repro)
    for file in (made(project, 1) / "mood").iterdir():
        assert (clone / "data/06_models/onnx/mood" / file.name).read_bytes() == file.read_bytes()


def test_a_removed_cache_is_made_again_by_a_rerun_and_fetched_from_a_remote(project, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone = tmp_path / "clone"
    run(clone, "dvc", "repro", "-q", "-P")
    shutil.rmtree(clone / ".dvc" / "cache")
    shutil.rmtree(clone / "data" / "06_models" / "onnx")
    run(clone, "dvc", "repro", "-q", "-P")
    assert run(clone, "git", "status", "--porcelain") == ""  # the same bytes: dvc.lock is as it was
    shutil.rmtree(clone / ".dvc" / "cache")
    run(clone, "dvc", "fetch", "-q")
    assert "up to date" in run(clone, "dvc", "status")


@pytest.mark.parametrize("fault", ["changed", "unknown", "fetch", "remote", "no git"])
def test_what_has_no_lineage_is_told_why(fault, project, tmp_path):
    bundle, place = tmp_path / "mood", project
    shutil.copytree(made(project, 1) / "mood", bundle)
    if fault == "changed":
        (bundle / "model.onnx").write_text("another")
        said = "is not the file that was exported"
    elif fault == "unknown":
        manifest = bundle / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"t5"', '"t7"'))
        said = r"is in none of the 3 exports that the history of dvc\.lock .* knows; was it made"
    elif fault == "fetch":
        run(tmp_path, "git", "clone", "-q", str(project), "clone")
        place = tmp_path / "clone"
        run(place, "dvc", "remote", "modify", "-q", "kept", "url", str(tmp_path / "elsewhere"))
        said = "lack 3 of them: dvc fetch --all-commits"
    elif fault == "remote":
        run(tmp_path, "git", "clone", "-q", str(project), "clone")
        place = tmp_path / "clone"
        run(place, "dvc", "remote", "modify", "-q", "kept", "url", "s3://models/kept")
        said = "DVC cannot look into its cache and remote: s3 is supported, but requires 'dvc-s3'"
    else:
        place = tmp_path
        said = "git cannot tell the history of .*; run it in a clone"
    with pytest.raises(HyperFormerError, match=said):
        lineage(bundle, place)


def test_the_command_answers_a_mistake_in_one_sentence(tmp_path):
    done = run_python("import runpy; runpy.run_module('pipelines.lineage', run_name='__main__')", tmp_path)
    said = f"Error: {tmp_path} holds no manifest.json; use the folder of an exported task"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, said)
