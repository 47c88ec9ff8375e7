"""Shared bases: they answer as each task's separate bundle does, and each task adds a small adapter file."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from processes import run_python
from toys import export_shared_base, method_settings, task_settings, train_settings

from hyperformer.cli import main
from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import folder_sha256, sha256
from hyperformer.core.manifest import ADAPTER, BASE, GRAPH, MODEL_CARD, TOKENIZER
from hyperformer.core.text import find_columns
from hyperformer.data.storage import read_rows
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.runtime import load
from hyperformer.settings import Tasks

TASKS = list(task_settings())


@pytest.fixture
def copied(shared_base, tmp_path):
    """Copy a shared base, which a test may damage."""
    shutil.copytree(shared_base, tmp_path / "shared")
    return tmp_path / "shared"


@pytest.fixture(scope="module")
def rows(toy_rows):
    return {task: list(read_rows(toy_rows, task, "validation")) for task in TASKS}


def largest_difference(left, right, rows):
    """Return the largest difference of a probability or value on all rows."""
    differences = []
    for a, b in zip(left.answer(rows), right.answer(rows), strict=True):
        differences += [abs(a.probabilities[label] - b.probabilities[label]) for label in b.probabilities]
        differences += [] if b.value is None else [abs(a.value - b.value)]
    return max(differences)


def test_there_is_one_graph_and_a_small_folder_for_each_task(shared_base):
    assert {path.name for path in shared_base.iterdir()} == {*TASKS, GRAPH, TOKENIZER, BASE}
    for task in TASKS:
        assert {path.name for path in (shared_base / task).iterdir()} == {ADAPTER, MODEL_CARD, manifest.MANIFEST}
        description = manifest.read(shared_base / task)
        assert description.files == {n: sha256(shared_base / task / n) for n in (ADAPTER, MODEL_CARD)}
        assert description.made_from["base"] == sha256(shared_base / GRAPH)
        assert description.parity["rows"] > 0


@pytest.mark.parametrize("task", TASKS)
def test_it_answers_as_the_tasks_separate_graph(shared_base, bundles, rows, task):
    assert largest_difference(load(shared_base)[task], load(bundles)[task], rows[task]) < 1e-5
    assert largest_difference(load(shared_base / task), load(bundles / task), rows[task]) < 1e-5


def test_tasks_of_different_sizes_answer_correctly_in_parallel(shared_base, bundles, rows):
    shared, separate = load(shared_base), load(bundles)
    requests = [(task, row) for number in range(8) for task in TASKS for row in [rows[task][number]]] * 3
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: shared[request[0]](request[1]), requests))
    for (task, row), answer in zip(requests, answers, strict=True):
        assert answer.label == separate[task](row).label
        assert answer.probabilities == pytest.approx(separate[task](row).probabilities, abs=1e-5)


def test_the_graph_uses_standard_operators_and_takes_task_tensors_as_inputs(shared_base):
    onnx.checker.check_model(str(shared_base / GRAPH), full_check=True)
    graph = onnx.load(shared_base / GRAPH)
    assert {node.domain or "ai.onnx" for node in graph.graph.node} == {"ai.onnx"}
    inputs = [value.name for value in graph.graph.input]
    assert inputs[:2] == ["input_ids", "attention_mask"]
    assert any(name.endswith("adapter.down") for name in inputs)
    defaults = {tensor.name: tensor for tensor in graph.graph.initializer if tensor.name in inputs}
    assert set(defaults) == set(inputs[2:])
    assert not any(np.any(onnx.numpy_helper.to_array(tensor)) for tensor in defaults.values())


OFFSETS = {"shared_adapter": True, "embeddings": "product", "layer_norm": "conditional_offset"}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("adapters_per_task", {}),
        ("adapters_multi_task", {}),
        ("shared_adapter", {}),
        ("hyperformer", {}),
        ("hyperformer_plus_plus", OFFSETS),
        ("hyperformer_plus_plus", {**OFFSETS, "layer_norm": "unconditional", "projector": None}),
    ],
)
def test_other_methods_share_a_base_and_may_have_task_specific_layer_norms(
    method, changes, train, toy_rows, export_settings, tmp_path
):
    writer, _ = train(train_settings(learning_rate=0.03), 0, tmp_path / "states", method_settings(method, **changes))
    writer(tmp_path / "checkpoint")
    export_shared_base(tmp_path / "checkpoint", toy_rows, export_settings, tmp_path / "shared")  # compares with PyTorch
    inputs = {value.name for value in onnx.load(tmp_path / "shared" / GRAPH).graph.input}
    assert ("encoder.0.itself.norm.weight" in inputs) == (method == "adapters_per_task")


@pytest.mark.parametrize("method", ["fine_tuning_multi_task", "fine_tuning_per_task"])
def test_a_method_that_trains_the_backbone_has_no_base_to_share(method, train, toy_rows, export_settings, tmp_path):
    writer, _ = train(train_settings(steps=2), 0, tmp_path / "states", method_settings(method))
    writer(tmp_path / "checkpoint")
    with pytest.raises(HyperFormerError, match=rf"{method} trains the backbone; .* Export separate bundles, or train"):
        export_shared_base(tmp_path / "checkpoint", toy_rows, export_settings, tmp_path / "shared")


def test_a_single_task_cannot_share_a_base(backbone_settings, toy_rows, export_settings, tmp_path):
    mood = Tasks({"mood": task_settings()["mood"]})
    MultiTaskModel(backbone_settings, method_settings("adapters_multi_task"), mood).save_pretrained(tmp_path / "one")
    with pytest.raises(HyperFormerError, match="in the checkpoint: 1; expected at least 2"):
        export_shared_base(tmp_path / "one", toy_rows, export_settings, tmp_path / "shared")


@pytest.mark.usefixtures("unshared_traces")
def test_a_second_export_gives_the_same_bytes(shared_base, checkpoint, toy_rows, export_settings, tmp_path):
    export_shared_base(checkpoint, toy_rows, export_settings, tmp_path)
    assert folder_sha256(tmp_path) == folder_sha256(shared_base)


@pytest.mark.parametrize("task", TASKS)
def test_the_model_card_has_code_that_answers_with_onnxruntime_alone(shared_base, task):
    code = (shared_base / task / MODEL_CARD).read_text().split("```python\n")[2].partition("```")[0]
    process = run_python(code, cwd=shared_base / task)
    assert process.returncode == 0, process.stderr
    answer = load(shared_base / task)(dict.fromkeys(find_columns(manifest.read(shared_base / task).text), "…"))
    label, *value = process.stdout.split("\n")[:-1]
    assert label == answer.label
    if answer.value is not None:
        assert float(value[0]) == pytest.approx(answer.value, abs=1e-4)


def test_the_command_line_supports_it(shared_base, rows, capsys):
    assert main(["verify", str(shared_base)]) == 0
    assert main(["inspect", str(shared_base)]) == 0
    assert main(["predict", str(shared_base / "mood"), json.dumps(rows["mood"][0])]) == 0
    output = capsys.readouterr().out
    assert "base: 2 files match their checksums" in output
    assert "base of all tasks" in output
    assert '"label": ' in output


def test_a_task_of_another_base_is_refused(copied):
    description = json.loads((copied / "mood" / manifest.MANIFEST).read_text())
    description["made_from"]["base"] = "0" * 64
    (copied / "mood" / manifest.MANIFEST).write_text(json.dumps(description))
    with pytest.raises(HyperFormerError, match="was exported with a base other than"):
        load(copied)["mood"]


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER, f"mood/{ADAPTER}"])
def test_a_file_that_was_changed_is_refused(copied, name, capsys):
    with (copied / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(HyperFormerError, match="is not the file that was exported"):
        load(copied)["mood"]
    assert main(["verify", str(copied)]) == 1
    assert "is not the file that was exported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "has format 'list', expected 1"),
        ('{"format": 2}', "has format 2, expected 1"),
        ('{"format": 1}', "missing or unknown fields: backbone"),
    ],
)
def test_an_invalid_description_of_the_base_is_refused(copied, content, message):
    (copied / BASE).write_text(content)
    with pytest.raises(HyperFormerError, match=message):
        load(copied)


def test_it_is_in_float32_only(shared_base):
    with pytest.raises(HyperFormerError, match=r"is in float32 only\. Export separate bundles to use int8"):
        load(shared_base, precision="int8")
