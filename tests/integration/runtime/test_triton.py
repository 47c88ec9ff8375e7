"""Bundles as Triton's model repository: the configuration is Triton's own kind, and the graph answers as it says."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient
from google.protobuf import text_format
from toys import task_settings

from hyperformer.cli import main
from hyperformer.manifest import GRAPH
from hyperformer.runtime import load
from hyperformer.runtime.triton import write_repository
from hyperformer.types import HyperFormerError

TYPE_INT64, TYPE_FP32 = 9, 11  # of the message
TASKS = sorted(task_settings())


@pytest.fixture(scope="module")
def model_config():
    """Triton's own message; its package asks for grpc, which this file does not."""
    file = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.fixture(scope="module")
def repository(bundles, tmp_path_factory):
    place = tmp_path_factory.mktemp("triton") / "models"
    assert write_repository([bundles / task for task in TASKS], place) == TASKS
    return place


@pytest.mark.parametrize("task", TASKS)
def test_the_configuration_says_what_the_graph_takes_and_gives(repository, bundles, model_config, task):
    said = text_format.Parse((repository / task / "config.pbtxt").read_text(), model_config())
    assert (said.name, said.backend, said.max_batch_size) == (task, "onnxruntime", 64)
    session = onnxruntime.InferenceSession(repository / task / "1" / GRAPH, providers=["CPUExecutionProvider"])
    for declared, real in ((said.input, session.get_inputs()), (said.output, session.get_outputs())):
        assert [one.name for one in declared] == [one.name for one in real]
        for one, other in zip(declared, real, strict=True):
            dims = list(one.reshape.shape) if one.HasField("reshape") else list(one.dims)
            assert dims == [-1 if isinstance(size, str) else size for size in other.shape[1:]]
            assert (one.data_type, other.type) in ((TYPE_INT64, "tensor(int64)"), (TYPE_FP32, "tensor(float)"))
    labels = (repository / task / said.output[0].label_filename).read_text().splitlines()
    assert labels == load(bundles)[task].manifest.labels


def test_the_model_answers_as_the_bundle(repository, bundles):
    bundle = load(bundles)["mood"]
    [ids], _ = bundle.encode([bundle.source({"sentence": "the film is dull"})])
    session = onnxruntime.InferenceSession(repository / "mood" / "1" / GRAPH, providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)})
    labels = (repository / "mood" / "labels.txt").read_text().splitlines()
    assert labels[scores[0][0].argmax()] == bundle({"sentence": "the film is dull"}).label


def test_the_command_writes_it_and_leaves_what_is_there(bundles, tmp_path, capsys):
    assert main(["triton", str(bundles), str(tmp_path / "models")]) == 0
    assert f"3 models, {', '.join(TASKS)}" in capsys.readouterr().out
    assert main(["triton", str(bundles), str(tmp_path / "models")]) == 1
    assert "is not an empty folder; name another, or clear it" in capsys.readouterr().err


def test_a_bundle_that_cannot_be_leaves_nothing_half_written(bundles, shared_base, tmp_path):
    with pytest.raises(HyperFormerError, match="mood is on a shared base: export a bundle of its own"):
        write_repository([bundles / "mood3", shared_base / "mood"], tmp_path / "models")
    shutil.copytree(bundles / "mood", tmp_path / "mood")
    (tmp_path / "mood" / GRAPH).write_bytes(b"")
    with pytest.raises(HyperFormerError, match="is not the file that was exported"):
        write_repository([bundles / "mood3", tmp_path / "mood"], tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["mood"]
