"""Bundles: what stands in the folder of an exported task."""

from __future__ import annotations

import json

import pytest
from toys import task_settings

from hyperformer import manifest
from hyperformer.data import read_rows
from hyperformer.runtime import GRAPH, TOKENIZER

TASKS = list(task_settings())


def test_there_is_a_folder_for_each_task(bundles):
    assert sorted(path.name for path in bundles.iterdir()) == sorted(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_a_bundle_holds_graph_tokenizer_and_a_manifest_that_names_their_bytes(bundles, task):
    folder = bundles / task
    assert {path.name for path in folder.iterdir()} == {GRAPH, TOKENIZER, manifest.FILE}
    assert manifest.read(folder).files == {name: manifest.sha256(folder / name) for name in (GRAPH, TOKENIZER)}


def test_the_manifest_says_how_to_ask_and_what_the_answers_are(bundles, export_settings, backbone_folder):
    mood, likeness = (manifest.read(bundles / task) for task in ("mood", "likeness"))
    assert (mood.task, mood.kind, mood.text) == ("mood", "classification", "sentence: {sentence}")
    assert (mood.labels, mood.numbers) == (["negative", "positive"], None)
    assert (likeness.labels, likeness.numbers) == (["0", "1", "2", "3"], [0, 1, 2, 3])
    assert (mood.max_source_tokens, mood.opset, mood.method) == (32, export_settings.opset, "hyperformer_plus_plus")
    assert mood.backbone == str(backbone_folder)
    assert mood.metrics == {"mean": 50.0}


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
