"""Classifier graphs: their contents, and that they answer as PyTorch does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from toys import task_settings

from hyperformer.backbones.t5 import T5Backbone
from hyperformer.core.manifest import GRAPH, INT8
from hyperformer.export import TARGETS, classifier, graphs
from hyperformer.export.classifier import Classifier
from hyperformer.model.multi_task import DEFAULT_EVALUATION, MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.tasks import TASK_TYPES

TASK = "mood3"


@pytest.fixture(scope="module")
def file(bundles: Path) -> Path:
    return bundles / TASK / GRAPH


@pytest.fixture(scope="module")
def graph(file: Path) -> onnx.ModelProto:
    return onnx.load(file)


@pytest.fixture(scope="module")
def baked(checkpoint: Path) -> T5Backbone:
    return MultiTaskModel.from_pretrained(checkpoint).bake(TASK)


def test_every_task_kind_has_a_target():
    assert TARGETS.keys() == TASK_TYPES.keys()


def test_the_checker_passes_in_full(file):
    onnx.checker.check_model(str(file), full_check=True)


def test_the_graph_uses_the_standard_operators_only(graph, export_settings):
    assert {(entry.domain or "ai.onnx", entry.version) for entry in graph.opset_import} == {
        ("ai.onnx", export_settings.opset)
    }
    assert {node.domain or "ai.onnx" for node in graph.graph.node} == {"ai.onnx"}
    assert not graph.functions


def test_inputs_and_outputs_are_named_and_open_in_batch_and_length(graph):
    def axes(values):
        return {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in values
        }

    assert axes(graph.graph.input) == {"input_ids": ["batch", "length"], "attention_mask": ["batch", "length"]}
    assert axes(graph.graph.output) == {"scores": ["batch", 3], "probabilities": ["batch", 3]}
    assert {value.type.tensor_type.elem_type for value in graph.graph.input} == {onnx.TensorProto.INT64}


@pytest.mark.parametrize("lengths", [[1], [9], [3, 12, 7], [2, 2], [30, 1, 5, 17, 8, 30, 4]], ids=str)
def test_the_graph_gives_torchs_scores_for_any_batch_length_and_padding(file, baked, lengths):
    draw = np.random.default_rng(0)
    input_ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
    mask = np.zeros_like(input_ids)
    for i, length in enumerate(lengths):
        input_ids[i, :length] = draw.integers(3, 90, length)
        mask[i, :length] = 1
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    scores, probabilities = session.run(["scores", "probabilities"], {"input_ids": input_ids, "attention_mask": mask})
    answers = baked.encode_answers(list(task_settings()[TASK]["labels"].values()))
    with torch.no_grad():
        wanted = baked.scores(torch.tensor(input_ids), torch.tensor(mask), answers, "constrained").numpy()
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)
    shares = np.exp(wanted - wanted.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, shares / shares.sum(1, keepdims=True), rtol=0, atol=1e-5)


def test_the_hypernetwork_is_not_in_the_graph(graph, checkpoint):
    model = MultiTaskModel.from_pretrained(checkpoint)
    backbone = {frozenset(p.shape) for p in model.backbone.parameters()}
    adapters = {frozenset((4, 16))}
    hypernetwork = {frozenset(p.shape) for p in model.method.parameters() if p.dim() == 2} - backbone - adapters
    assert frozenset((8, 4 * 16)) in hypernetwork  # generates every down-projection
    assert not hypernetwork & {frozenset(t.dims) for t in graph.graph.initializer}
    fragments = ("hyper", "method", "projector", "task_embedding", "stacks", "position_embedding")
    names = [t.name for t in graph.graph.initializer] + [n.name for n in graph.graph.node]
    assert not [name for name in names if any(fragment in name for fragment in fragments)]


def test_the_graph_holds_the_backbone_and_one_tasks_adapters_and_little_more(graph, checkpoint):
    model = MultiTaskModel.from_pretrained(checkpoint)
    d, r, sites, slack = 16, 4, 8, 900  # slack: position biases for each distance
    floats = sum(int(np.prod(t.dims)) for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    backbone = sum(p.numel() for p in model.backbone.parameters())
    adapters = sites * (2 * d * r + r + 3 * d)
    folded = 6 * d * d + 2 * d * r + r + 3 * d  # the decoder's first block, up to its cross-attention
    assert backbone + adapters - folded < floats < backbone + adapters - folded + slack
    assert sum(p.numel() for p in model.method.parameters()) > 4 * slack


def test_the_file_reveals_no_source_code_or_paths(file):
    content = file.read_bytes()
    for fragment in (".py", "site-packages", "Traceback", "stack_trace", str(Path.cwd()), sys.prefix):
        assert fragment.encode() not in content, fragment


@pytest.mark.usefixtures("unshared_traces")
def test_exporting_twice_gives_identical_bytes(file, checkpoint, export_settings, tmp_path):
    model = MultiTaskModel.from_pretrained(checkpoint)
    Classifier(TaskModels([model]), export_settings, DEFAULT_EVALUATION).write(model.tasks[TASK], tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (file.parent / path.name).read_bytes(), path.name
    assert (tmp_path / GRAPH).is_file()


def test_tasks_have_separate_graphs(bundles):
    first, second = (onnx.load(bundles / name / GRAPH) for name in ("mood", "mood3"))
    common = {t.name: numpy_helper.to_array(t) for t in first.graph.initializer}
    changed = [
        t.name
        for t in second.graph.initializer
        if t.name in common
        and common[t.name].dtype == np.float32
        and common[t.name].shape == tuple(t.dims)
        and not np.array_equal(common[t.name], numpy_helper.to_array(t))
    ]
    assert changed


@torch.no_grad()
def test_a_fine_tuned_task_is_exported_equal_to_torch(make_model, export_settings, tmp_path):
    """A method without adapters exports the checkpoint's backbone."""
    model = make_model(method="fine_tuning_multi_task")
    model.backbone.t5.shared.weight += 0.1
    task = model.tasks["mood"]
    Classifier(TaskModels([model]), export_settings, DEFAULT_EVALUATION).write(task, tmp_path)
    ids = torch.tensor([[5, 6, 7, 1], [8, 1, 0, 0]])
    mask = (ids > 0).long()
    session = onnxruntime.InferenceSession(tmp_path / GRAPH, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    expected = model.backbone.scores(ids, mask, model.answers["mood"], "constrained")
    torch.testing.assert_close(torch.tensor(scores), expected, rtol=0, atol=1e-4)


def test_constants_beyond_the_largest_size_go_to_a_separate_file(
    file, checkpoint, export_settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(graphs, "LARGEST", 1000)
    model = MultiTaskModel.from_pretrained(checkpoint)
    Classifier(TaskModels([model]), export_settings, DEFAULT_EVALUATION).write(model.tasks[TASK], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {GRAPH, f"{GRAPH}.data"}
    assert (tmp_path / GRAPH).stat().st_size < file.stat().st_size
    inputs = {"input_ids": np.array([[5, 6, 7, 1]]), "attention_mask": np.ones((1, 4), dtype=np.int64)}
    single, split = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["scores"], inputs)[0]
        for path in (file, tmp_path / GRAPH)
    )
    np.testing.assert_array_equal(single, split)
    assert onnxruntime.InferenceSession(tmp_path / INT8, providers=["CPUExecutionProvider"]).run(["scores"], inputs)


def test_tasks_whose_labels_have_the_same_shape_are_traced_once(checkpoint, export_settings, monkeypatch):
    model = MultiTaskModel.from_pretrained(checkpoint)
    target = Classifier(TaskModels([model]), export_settings, DEFAULT_EVALUATION)
    first = target._graph(model.bake("mood"), model.tasks["mood"])
    monkeypatch.setattr(classifier, "trace_graph", None)
    second = target._graph(model.bake("mood"), model.tasks["mood"])
    assert first.SerializeToString() == second.SerializeToString()
    with pytest.raises(TypeError):
        target._graph(model.bake("mood3"), model.tasks["mood3"])
