"""Triton model repositories: the configuration is valid and matches the graph."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient
from google.protobuf import text_format
from toys import task_settings

from hyperformer.cli import main
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import GRAPH, MANIFEST
from hyperformer.runtime import load
from hyperformer.serving.triton import write_repository

TYPE_INT64, TYPE_FP32 = 9, 11  # enum values of the message
TASKS = sorted(task_settings())


@pytest.fixture(scope="module")
def model_config():
    """Triton's `ModelConfig` message; its package needs grpc, its file does not."""
    file = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.fixture(scope="module")
def repository(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton") / "models"
    assert write_repository([bundles / task for task in TASKS], folder) == TASKS
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_the_configuration_matches_the_inputs_and_outputs_of_the_graph(repository, bundles, model_config, task):
    config = text_format.Parse((repository / task / "config.pbtxt").read_text(), model_config())
    assert (config.name, config.backend, config.max_batch_size) == (task, "onnxruntime", 64)
    session = onnxruntime.InferenceSession(repository / task / "1" / GRAPH, providers=["CPUExecutionProvider"])
    for declared, actual in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [value.name for value in declared] == [value.name for value in actual]
        for left, right in zip(declared, actual, strict=True):
            dims = list(left.reshape.shape) if left.HasField("reshape") else list(left.dims)
            assert dims == [-1 if isinstance(size, str) else size for size in right.shape[1:]]
            assert (left.data_type, right.type) in ((TYPE_INT64, "tensor(int64)"), (TYPE_FP32, "tensor(float)"))
    labels = (repository / task / config.output[0].label_filename).read_text().splitlines()
    assert labels == load(bundles)[task].manifest.labels


def test_a_bundle_that_is_not_published_becomes_a_model_only_if_allowed(bundles, tmp_path):
    copied = shutil.copytree(bundles / "mood", tmp_path / "mood")
    content = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(json.dumps({**content, "published": False}))
    with pytest.raises(HyperFormerError, match="mood is not published"):
        write_repository([bundles / "mood3", copied], tmp_path / "models")
    assert not (tmp_path / "models").exists()
    assert main(["triton", str(copied), str(tmp_path / "models"), "--allow-unpublished"]) == 0


def test_the_model_answers_as_the_bundle(repository, bundles):
    bundle = load(bundles)["mood"]
    [ids], _ = bundle.encode([bundle.source({"sentence": "the film is dull"})])
    session = onnxruntime.InferenceSession(repository / "mood" / "1" / GRAPH, providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)})
    labels = (repository / "mood" / "labels.txt").read_text().splitlines()
    assert labels[scores[0][0].argmax()] == bundle({"sentence": "the film is dull"}).label


def test_the_command_writes_a_repository_and_never_overwrites_one(bundles, tmp_path, capsys):
    assert main(["triton", str(bundles), str(tmp_path / "models")]) == 0
    assert f"3 models, {', '.join(TASKS)}" in capsys.readouterr().out
    assert main(["triton", str(bundles), str(tmp_path / "models")]) == 1
    assert "is not an empty folder. Choose another path, or empty the folder." in capsys.readouterr().err


def copy_labelled(bundle, folder, labels):
    shutil.copytree(bundle, folder)
    description = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**description, "labels": labels}), encoding="utf-8")
    return folder


def test_names_and_labels_may_have_any_characters_but_line_breaks(bundles, model_config, tmp_path):
    name, labels = "\"a\\'{b} ä🙂#", ['"', "a:b\r\x0b\u2028c"]
    bundle = copy_labelled(bundles / "mood", tmp_path / name, labels)
    assert write_repository([bundle], tmp_path / "models") == [name]
    config = text_format.Parse((tmp_path / "models" / name / "config.pbtxt").read_text("utf-8"), model_config())
    assert config.name == name
    assert (tmp_path / "models" / name / "labels.txt").read_bytes() == "".join(f"{x}\n" for x in labels).encode()
    broken = copy_labelled(bundles / "mood", tmp_path / "broken", ["good", "not\ngood"])
    with pytest.raises(HyperFormerError, match=r"task 'mood' has the label 'not\\ngood'; expected labels without line"):
        write_repository([broken], tmp_path / "others")


def test_a_bundle_that_is_refused_leaves_no_partial_repository(bundles, shared_base, tmp_path):
    with pytest.raises(HyperFormerError, match="mood uses a shared base; expected a separate bundle"):
        write_repository([bundles / "mood3", shared_base / "mood"], tmp_path / "models")
    shutil.copytree(bundles / "mood", tmp_path / "mood")
    (tmp_path / "mood" / GRAPH).write_bytes(b"")
    with pytest.raises(HyperFormerError, match="is not the file that was exported"):
        write_repository([bundles / "mood3", tmp_path / "mood"], tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["mood"]
