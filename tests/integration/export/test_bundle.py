"""Bundles: the files of an exported task and their contents."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from processes import run_python
from toys import make_baselines, task_settings

from hyperformer import evaluation
from hyperformer.core import manifest
from hyperformer.core.files import folder_sha256, sha256
from hyperformer.core.manifest import GRAPH, INT8, MODEL_CARD, TOKENIZER
from hyperformer.core.text import find_columns
from hyperformer.data.storage import read_rows
from hyperformer.export import quantize
from hyperformer.export.bundle import export
from hyperformer.export.classifier import Classifier
from hyperformer.model.multi_task import DEFAULT_EVALUATION, MultiTaskModel
from hyperformer.runtime import load
from hyperformer.settings import Tasks
from hyperformer.tasks import make_tasks

TASKS = list(task_settings())


def test_there_is_a_folder_for_each_task(bundles):
    assert sorted(path.name for path in bundles.iterdir()) == sorted(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_a_bundle_holds_graph_tokenizer_and_a_manifest_that_names_their_bytes(bundles, task):
    folder = bundles / task
    description = manifest.read(folder)
    names = {GRAPH, TOKENIZER, MODEL_CARD, *([INT8] if description.int8["published"] else [])}
    assert {path.name for path in folder.iterdir()} == {*names, manifest.MANIFEST}
    assert description.files == {name: sha256(folder / name) for name in names}


@pytest.mark.parametrize("task", TASKS)
def test_the_model_card_has_code_that_answers_with_onnxruntime_alone(bundles, task):
    card = (bundles / task / MODEL_CARD).read_text()
    code = card.split("```python\n")[2].partition("```")[0]
    process = run_python(code, cwd=bundles / task)
    assert process.returncode == 0, process.stderr
    row = dict.fromkeys(find_columns(manifest.read(bundles / task).text), "…")
    answer = load(bundles / task)(row)
    label, *value = process.stdout.split("\n")[:-1]
    assert label == answer.label
    if answer.value is not None:
        assert float(value[0]) == pytest.approx(answer.value, abs=1e-4)


def test_a_second_export_elsewhere_gives_the_same_bytes(bundles, checkpoint, toy_rows, export_settings, tmp_path):
    model = MultiTaskModel.from_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, toy_rows)
    export(checkpoint, toy_rows, metrics, make_baselines(TASKS), export_settings, DEFAULT_EVALUATION)(tmp_path)
    assert folder_sha256(tmp_path) == folder_sha256(bundles)


def test_an_int8_graph_that_loses_too_much_is_removed_and_its_metric_kept(bundles, toy_rows, tmp_path, monkeypatch):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    quantize.write(folder)
    description = manifest.read(folder)
    files = {**description.files, INT8: sha256(folder / INT8)}
    dataclasses.replace(description, files=files).write(folder)
    task, rows = make_tasks(Tasks(task_settings()))["mood"], list(read_rows(toy_rows, "mood", "validation"))
    metric = evaluation.compute_metrics(task, rows, load(folder).answer(rows))["mean"]
    result = quantize.compare(task, rows, load(folder, precision="int8"), metric + 3.0)  # one row is 100 / 36 points
    assert result == {"metric": pytest.approx(result["metric"]), "float32": metric + 3.0, "published": 0.0}
    written = object.__new__(Classifier).finish(folder, dataclasses.replace(description, int8=result))
    assert not (folder / INT8).exists()
    assert INT8 not in written.files
    assert manifest.read(folder) == written


def test_the_manifest_describes_inputs_and_labels(bundles, export_settings, backbone_folder):
    mood, likeness = (manifest.read(bundles / task) for task in ("mood", "likeness"))
    assert (mood.task, mood.kind, mood.text) == ("mood", "classification", "sentence: {sentence}")
    assert (mood.labels, mood.numbers) == (["negative", "positive"], None)
    assert (likeness.labels, likeness.numbers) == (["0", "1", "2", "3"], [0, 1, 2, 3])
    assert (mood.max_source_tokens, mood.opset, mood.method) == (32, export_settings.opset, "hyperformer_plus_plus")
    assert mood.backbone == str(backbone_folder)
    assert set(mood.metrics) == {"accuracy", "mean", "collapsed"}


def test_an_example_is_the_text_of_a_short_validation_row_if_the_settings_ask_for_it(
    bundles, checkpoint, toy_rows, export_settings, tmp_path
):
    assert manifest.read(bundles / "likeness").example == {}
    model = MultiTaskModel.from_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, toy_rows)
    settings = export_settings.model_copy(update={"examples": True})
    export(checkpoint, toy_rows, metrics, make_baselines(TASKS), settings, DEFAULT_EVALUATION)(tmp_path)
    example = manifest.read(tmp_path / "likeness").example
    rows = [{name: row[name] for name in ("a", "b")} for row in read_rows(toy_rows, "likeness", "validation")]
    assert example in rows[:10]
    assert all(len(example["a"] + example["b"]) <= len(row["a"] + row["b"]) for row in rows[:10])


@pytest.mark.parametrize("task", TASKS)
def test_parity_ran_over_every_validation_row(bundles, toy_rows, task, export_settings):
    parity = manifest.read(bundles / task).parity
    assert parity["rows"] == len(read_rows(toy_rows, task, "validation"))
    assert 0 <= parity["largest_difference"] <= export_settings.tolerance
    assert parity["ties"] == 0


def test_the_manifest_names_the_hashes_of_code_data_parameters_and_checkpoint(bundles, toy_rows, checkpoint):
    mood, mood3 = (manifest.read(bundles / task).made_from for task in ("mood", "mood3"))
    assert set(mood) == {"code", "parameters", "checkpoint", "data"}
    assert mood["checkpoint"] == folder_sha256(checkpoint)
    assert mood["data"] == folder_sha256(toy_rows / "mood") != mood3["data"]
    assert {name: value for name, value in mood.items() if name != "data"} == {
        name: value for name, value in mood3.items() if name != "data"
    }


def test_the_manifest_is_plain_json_without_times(bundles):
    fields = json.loads((bundles / "mood" / manifest.MANIFEST).read_text(encoding="utf-8"))
    assert not [name for name in fields if "time" in name or "date" in name]
