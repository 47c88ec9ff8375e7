"""Bundles: what stands in the folder of an exported task."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from processes import run_python
from toys import task_settings

from hyperformer import evaluation, manifest
from hyperformer.config import Tasks
from hyperformer.data import read_rows
from hyperformer.export import quantize
from hyperformer.export.bundle import export
from hyperformer.manifest import CARD, GRAPH, INT8, TOKENIZER
from hyperformer.model import SCORED, MultiTaskModel
from hyperformer.runtime import load
from hyperformer.tasks import make
from hyperformer.text import columns

TASKS = list(task_settings())


def test_there_is_a_folder_for_each_task(bundles):
    assert sorted(path.name for path in bundles.iterdir()) == sorted(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_a_bundle_holds_graph_tokenizer_and_a_manifest_that_names_their_bytes(bundles, task):
    folder = bundles / task
    described = manifest.read(folder)
    names = {GRAPH, TOKENIZER, CARD, *([INT8] if described.int8["published"] else [])}
    assert {path.name for path in folder.iterdir()} == {*names, manifest.FILE}
    assert described.files == {name: manifest.sha256(folder / name) for name in names}


@pytest.mark.parametrize("task", TASKS)
def test_the_card_holds_lines_that_answer_with_onnxruntime_alone(bundles, task):
    card = (bundles / task / CARD).read_text()
    code = card.split("```python\n")[2].partition("```")[0]
    found = run_python(code, cwd=bundles / task)
    assert found.returncode == 0, found.stderr
    row = dict.fromkeys(columns(manifest.read(bundles / task).text), "…")
    answer = load(bundles / task)(row)
    label, *value = found.stdout.split("\n")[:-1]
    assert label == answer.label
    if answer.value is not None:
        assert float(value[0]) == pytest.approx(answer.value, abs=1e-4)


def test_a_second_export_elsewhere_gives_the_same_bytes(bundles, checkpoint, toy_rows, export_settings, tmp_path):
    model = MultiTaskModel.from_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, toy_rows)
    export(checkpoint, toy_rows, metrics, export_settings, SCORED)(tmp_path)
    assert manifest.folder_sha256(tmp_path) == manifest.folder_sha256(bundles)


def test_a_graph_in_int8_that_loses_too_much_is_removed_and_its_figure_kept(bundles, toy_rows, tmp_path, monkeypatch):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    quantize.write(folder)
    described = manifest.read(folder)
    files = {**described.files, INT8: manifest.sha256(folder / INT8)}
    dataclasses.replace(described, files=files).write(folder)
    task, rows = make(Tasks(task_settings()))["mood"], list(read_rows(toy_rows, "mood", "validation"))
    own = evaluation.metrics(task, rows, load(folder).answer(rows))["mean"]
    found = quantize.judge(task, folder, rows, own + 3.0)  # one row of these is 100 / 36 points
    assert found == {"metric": pytest.approx(found["metric"]), "float32": own + 3.0, "published": 0.0}
    assert not (folder / INT8).exists()


def test_the_manifest_says_how_to_ask_and_what_the_answers_are(bundles, export_settings, backbone_folder):
    mood, likeness = (manifest.read(bundles / task) for task in ("mood", "likeness"))
    assert (mood.task, mood.kind, mood.text) == ("mood", "classification", "sentence: {sentence}")
    assert (mood.labels, mood.numbers) == (["negative", "positive"], None)
    assert (likeness.labels, likeness.numbers) == (["0", "1", "2", "3"], [0, 1, 2, 3])
    assert (mood.max_source_tokens, mood.opset, mood.method) == (32, export_settings.opset, "hyperformer_plus_plus")
    assert mood.backbone == str(backbone_folder)
    assert set(mood.metrics) == {"accuracy", "mean", "collapsed"}


@pytest.mark.parametrize("task", TASKS)
def test_parity_ran_over_every_validation_row(bundles, toy_rows, task, export_settings):
    found = manifest.read(bundles / task).parity
    assert found["rows"] == len(read_rows(toy_rows, task, "validation"))
    assert 0 <= found["largest_difference"] <= export_settings.tolerance
    assert found["ties"] == 0


def test_the_manifest_names_the_hashes_of_code_data_parameters_and_checkpoint(bundles, toy_rows, checkpoint):
    mood, mood3 = (manifest.read(bundles / task).made_from for task in ("mood", "mood3"))
    assert set(mood) == {"code", "parameters", "checkpoint", "data"}
    assert mood["checkpoint"] == manifest.folder_sha256(checkpoint)
    assert mood["data"] == manifest.folder_sha256(toy_rows / "mood") != mood3["data"]
    assert {name: value for name, value in mood.items() if name != "data"} == {
        name: value for name, value in mood3.items() if name != "data"
    }


def test_the_manifest_is_plain_json_without_times(bundles):
    found = json.loads((bundles / "mood" / manifest.FILE).read_text(encoding="utf-8"))
    assert not [name for name in found if "time" in name or "date" in name]
