"""Tasks no better than a guess are exported but not published, and labels get the names of the settings."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import onnxruntime
import onnxruntime_extensions
import pytest
from toys import make_baselines, task_settings

from hyperformer import evaluation
from hyperformer.cli import main
from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import GRAPH, MODEL_CARD
from hyperformer.export.bundle import export, export_shared_base
from hyperformer.model.multi_task import DEFAULT_EVALUATION, MultiTaskModel
from hyperformer.runtime import load
from hyperformer.serving.string_graph import write_string_graph

TASKS = list(task_settings())
NAMES = {"good": "fine", "quite bad": "good"}
ROWS = [{"sentence": f"the film is {adjective}"} for adjective in ("dull", "wonderful", "lovely", "wicked")]


@pytest.fixture(scope="module")
def metrics(checkpoint, toy_rows):
    model = MultiTaskModel.from_pretrained(checkpoint)
    return evaluation.evaluate_all(model.answer, model.tasks, toy_rows)[0]


@pytest.fixture(scope="module")
def log() -> list[logging.LogRecord]:
    """Return the records that the export of `exported` logs."""
    return []


@pytest.fixture(scope="module")
def exported(tmp_path_factory, checkpoint, toy_rows, export_settings, metrics, log):
    """Export the toy tasks below the majority, of which `mood3` is allowed to be, and rename labels of `mood3`."""
    folder, handler, logger = tmp_path_factory.mktemp("exported"), logging.Handler(), logging.getLogger("hyperformer")
    handler.emit = log.append
    settings = export_settings.model_copy(update={"allow_below_majority": ("mood3",), "label_names": {"mood3": NAMES}})
    baselines = {**make_baselines(TASKS, 99.0), "test": make_baselines(TASKS, 12.5)["test"]}
    baselines["validation"]["likeness"] = {"majority": {"mean": -100.0}}
    logger.addHandler(handler)
    export(checkpoint, toy_rows, metrics, baselines, settings, DEFAULT_EVALUATION)(folder)
    logger.removeHandler(handler)
    return folder


def test_a_task_below_the_majority_is_written_but_not_published(exported, bundles):
    descriptions = {task: manifest.read(exported / task) for task in TASKS}
    assert {task: description.published for task, description in descriptions.items()} == {
        "mood": False, "mood3": True, "likeness": True,
    }  # fmt: skip
    assert [description.baselines for description in descriptions.values()] == [{"majority": 12.5}] * len(TASKS)
    for task, description in descriptions.items():
        assert description.files[GRAPH] == manifest.read(bundles / task).files[GRAPH]
    assert "**Not published**" in (exported / "mood" / MODEL_CARD).read_text()
    assert load(exported)["mood3"](ROWS[0]).label
    with pytest.raises(HyperFormerError, match="mood is not published"):
        load(exported / "mood")


def test_a_task_that_is_not_published_is_a_warning_with_both_figures(exported, log, metrics):
    warnings = [record.getMessage() for record in log if record.levelno == logging.WARNING]
    mean = metrics["validation"]["mood"]["mean"]
    assert warnings == [
        f"mood: not published, because its mean validation metric is {mean:.2f} and the majority baseline's is 99.00; "
        "add rows, train longer, or list the task in export.allow_below_majority"
    ]


@pytest.mark.parametrize("write", [export, export_shared_base])
def test_baselines_of_other_tasks_are_refused(write, checkpoint, toy_rows, export_settings, metrics):
    baselines = make_baselines(["mood", "likeness"])
    with pytest.raises(HyperFormerError, match=r"no validation baselines of the task 'mood3'; .* \(pipeline baselines"):
        write(checkpoint, toy_rows, metrics, baselines, export_settings, DEFAULT_EVALUATION)


def test_a_shared_base_publishes_and_renames_as_separate_bundles(
    exported, checkpoint, toy_rows, export_settings, metrics, tmp_path
):
    settings = export_settings.model_copy(update={"label_names": {"mood3": NAMES}})
    baselines = make_baselines(TASKS)
    baselines["validation"]["mood"] = {"majority": {"mean": 100.0}}
    export_shared_base(checkpoint, toy_rows, metrics, baselines, settings, DEFAULT_EVALUATION)(tmp_path)
    assert [manifest.read(tmp_path / task).published for task in TASKS] == [False, True, True]
    left, right = (load(folder)["mood3"].answer(ROWS) for folder in (tmp_path, exported))
    assert [answer.label for answer in left] == [answer.label for answer in right]
    assert "- Output: `good`, `fine`, `neither`\n" in (tmp_path / "mood3" / MODEL_CARD).read_text()


def test_renamed_labels_are_shown_with_the_same_probabilities(exported, bundles, metrics):
    assert manifest.read(exported / "mood3").labels == ["good", "fine", "neither"]
    assert manifest.read(exported / "mood3").metrics == metrics["test"]["mood3"]
    assert str(["good", "fine", "neither"]) in (exported / "mood3" / MODEL_CARD).read_text()
    for shown, trained in zip(load(exported / "mood3").answer(ROWS), load(bundles / "mood3").answer(ROWS), strict=True):
        assert shown.label == NAMES.get(trained.label, trained.label)
        assert shown.probabilities == {NAMES.get(name, name): p for name, p in trained.probabilities.items()}


def test_the_command_and_a_string_graph_answer_with_renamed_labels(exported, tmp_path: Path, capsys):
    expected = [answer.label for answer in load(exported / "mood3").answer(ROWS)]
    assert main(["predict", str(exported / "mood3"), *map(json.dumps, ROWS)]) == 0
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == expected
    write_string_graph(exported / "mood3", tmp_path / "mood3.onnx")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(tmp_path / "mood3.onnx", options, providers=["CPUExecutionProvider"])
    sentences = np.array([row["sentence"] for row in ROWS], dtype=object)
    assert session.run(["label"], {"sentence": sentences})[0].tolist() == expected
