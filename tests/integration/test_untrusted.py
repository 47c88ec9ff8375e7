"""Untrusted files are only data: no code in them is executed, and they cannot name files outside their folder."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from toys import train_settings

from hyperformer import backbones
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.model.checkpoint import CONFIGURATION, WEIGHTS
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.runtime import load
from hyperformer.settings import BackboneSettings

ROOT = Path(__file__).parents[2]


class Trap:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def trap(tmp_path) -> tuple[Path, bytes]:
    """Return the folder that the trap would create, and the bytes of its pickle."""
    created = tmp_path / "sprung"
    code = pickle.dumps(Trap(created), protocol=2)  # torch's protocol
    pickle.loads(code)
    assert created.is_dir()  # the trap works
    created.rmdir()
    return created, code


def settings_of(folder: Path) -> BackboneSettings:
    return BackboneSettings(path=str(folder), max_source_tokens=64, max_target_tokens=8)


def test_no_code_lets_a_library_trust_code_or_pickles():
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "pipelines").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword):
                assert node.arg not in ("trust_remote_code", "allow_pickle", "weights_only"), path
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
                assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & set(names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path


def test_a_backbone_with_pickled_weights_only_is_refused_unread(backbone_folder, tmp_path, trap):
    created, code = trap
    folder = shutil.copytree(backbone_folder, tmp_path / "backbone")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(code)
    with pytest.raises(HyperFormerError, match=r"cannot load a backbone from .*model\.safetensors"):
        backbones.load(settings_of(folder))
    assert not created.exists()


def test_the_custom_code_of_a_backbone_is_not_executed(backbone_folder, tmp_path):
    folder = shutil.copytree(backbone_folder, tmp_path / "backbone")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {name: f"evil.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM")}
    (folder / "config.json").write_text(json.dumps(config))
    names = "\n".join(f"class {name}: pass" for name in config["auto_map"])
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\n{names}\n")
    backbones.load(settings_of(folder))
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_with_pickled_weights_is_refused_unread(checkpoint, tmp_path, trap):
    created, code = trap
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    (folder / WEIGHTS).write_bytes(code)
    configuration = json.loads((folder / CONFIGURATION).read_text())
    configuration["files"][WEIGHTS] = sha256(folder / WEIGHTS)
    (folder / CONFIGURATION).write_text(json.dumps(configuration))
    with pytest.raises(HyperFormerError, match="is damaged"):
        MultiTaskModel.from_pretrained(folder)
    assert not created.exists()


def test_a_checkpoint_whose_task_name_leaves_the_folder_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    text = (folder / "configuration.json").read_text()
    (folder / "configuration.json").write_text(text.replace('"mood"', '"../../mood"'))
    with pytest.raises(HyperFormerError, match="got the task name"):
        MultiTaskModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_resume_state_from_another_location_executes_nothing(name, train, tmp_path, trap, monkeypatch):
    created, code = trap
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.lr_scheduler.LambdaLR, "step", _interrupt_after(5))
        with pytest.raises(KeyboardInterrupt):
            train(train_settings(), 0, tmp_path / "states")
    (state,) = (tmp_path / "states").rglob("checkpoint-*")
    (state / name).write_bytes(code)
    seal = json.loads((state / "seal.json").read_text())
    (state / "seal.json").write_text(json.dumps({**seal, name: sha256(state / name)}))
    with pytest.raises(HyperFormerError, match=r"the resume state .* cannot be read"):
        train(train_settings(), 0, tmp_path / "states")
    assert not created.exists()


def _interrupt_after(steps):
    """Return a replacement of the scheduler's step that interrupts training after some steps."""
    original, count = torch.optim.lr_scheduler.LambdaLR.step, [0]

    def step(scheduler, *arguments):
        count[0] += 1
        if count[0] > steps:
            raise KeyboardInterrupt
        return original(scheduler, *arguments)

    return step


def test_a_graph_that_names_a_file_outside_of_its_folder_is_refused(bundles, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 64)
    folder = shutil.copytree(bundles / "mood", tmp_path / "bundles" / "mood")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../../secret")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["scores"])], "g", [],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [16])], [weight],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = sha256(folder / "model.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(HyperFormerError, match="cannot be opened"):
        load(folder)
