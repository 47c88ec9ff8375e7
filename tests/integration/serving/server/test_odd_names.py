"""Columns, labels and tasks of any name, and values of any type, are served alike everywhere."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions
import pytest
from serving import build_request, running

from hyperformer.cli import main
from hyperformer.core.manifest import MANIFEST
from hyperformer.core.values import to_text
from hyperformer.runtime import Bundle
from hyperformer.serving.string_graph import write_string_graph

RESERVED = ["value", "label", "scores", "probabilities", "truncated", "input_ids", "attention_mask"]
COLUMNS = [
    *("Review Text", "row.label", "a/b", "text/0/words", "😀", "__proto__", "toString", " x ", "two\nlines", '"<b>|`'),
    *("column", "model", "mood", "probability_value", "ä", "submit", "0"),
    *RESERVED,
]
LABELS = ["truncated", 'a\n,"|`<b>{x}']
TASKS = [
    *(
        "v2",
        "models",
        "ready",
        "infer",
        "health",
        "repository",
        "versions",
        "index",
        "unknown",
        "metrics",
        "generation",
    ),
    *("a b", "ä", "%2F", "a:b", "a?b#c&d+e", "\"'<b>|`{x}$", "日本🙂", "model.onnx.v2", "x" * 200),
]
VALUES = [7.0, 1e-05, True, None, "a dull film", -0.5, 0, ""]


def copy_odd(bundle: Path, folder: Path) -> Path:
    """Copy a bundle, and give it odd columns and labels; the graph and the tokenizer stay the same."""
    shutil.copytree(bundle, folder)
    description = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    description |= {
        "text": "{{mood}}: " + " ".join(f"{{{column}}}" for column in COLUMNS),
        "labels": LABELS,
        "missing": "empty",
        "max_source_tokens": 400,
    }
    (folder / MANIFEST).write_text(json.dumps(description), encoding="utf-8")
    return folder


def shift_values(number: int) -> dict[str, object]:
    return {column: VALUES[(index + number) % len(VALUES)] for index, column in enumerate(COLUMNS)}


def to_texts(row: dict[str, object]) -> dict[str, str]:
    return {column: "" if value is None else to_text(value, column) for column, value in row.items()}


ROWS = [shift_values(number) for number in range(len(VALUES))]


@pytest.fixture(scope="module")
def odd(bundles, tmp_path_factory):
    return copy_odd(bundles / "mood", tmp_path_factory.mktemp("odd") / "mood")


@pytest.fixture(scope="module")
def server(odd, tmp_path_factory):
    root = tmp_path_factory.mktemp("onnx")
    for task in TASKS:
        shutil.copytree(odd, root / task)
    with running(root) as server:
        yield server


def test_a_row_and_its_texts_have_the_same_source(odd):
    bundle = Bundle(odd)
    for row in ROWS:
        assert bundle.source(row) == bundle.source(to_texts(row))
    assert bundle.source({}) == "{mood}: " + " " * (len(COLUMNS) - 1)
    assert bundle.source(ROWS[0]).startswith("{mood}: 7 0.00001 true  a dull film -0.5 0 ")


def test_a_string_graph_has_an_input_for_each_column_and_the_answers_of_the_bundle(odd, tmp_path):
    written = write_string_graph(odd, tmp_path / "odd.onnx", ROWS)
    assert written.inputs == [f"column:{column}" if column in RESERVED else column for column in COLUMNS]
    onnx.checker.check_model(tmp_path / "odd.onnx", full_check=True)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(tmp_path / "odd.onnx", options, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == written.inputs
    texts = [to_texts(row) for row in ROWS]
    inputs = {
        name: np.array([row[column] for row in texts], dtype=object)
        for name, column in zip(written.inputs, COLUMNS, strict=True)
    }
    labels, probabilities = session.run(["label", "probabilities"], inputs)
    for answer, label, row in zip(Bundle(odd).answer(ROWS), labels, probabilities.tolist(), strict=True):
        assert (answer.label, list(answer.probabilities.values())) == (label, pytest.approx(row, abs=1e-5))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_of_any_name_is_served_at_every_path(server, odd, task):
    path = f"/v2/models/{quote(task, safe='')}"
    status, metadata, _ = server.send("GET", path)
    assert (status, metadata["name"], metadata["parameters"]["labels"]) == (200, task, LABELS)
    assert [tensor["name"] for tensor in metadata["inputs"]] == COLUMNS
    for ready in (f"{path}/ready", f"{path}/versions/1/ready"):
        assert server.send("GET", ready)[:2] == (200, {"ready": True})
    for infer in (f"{path}/infer", f"{path}/versions/1/infer"):
        status, body, _ = server.send("POST", infer, build_request([to_texts(row) for row in ROWS]))
        outputs = {output["name"]: output["data"] for output in body["outputs"]}
        assert (status, body["model_name"]) == (200, task)
        assert outputs["label"] == [answer.label for answer in Bundle(odd).answer(ROWS)]


def test_the_index_the_api_and_the_metrics_have_all_names(server):
    server.send("POST", "/v2/models/none/infer", build_request([to_texts(ROWS[0])]))
    server.send("POST", "/v2/models/unknown/infer", build_request([to_texts(ROWS[0])]))
    assert [entry["name"] for entry in server.send("POST", "/v2/repository/index")[1]] == sorted(TASKS)
    api = server.send("GET", "/openapi.json")[1]
    parameters = api["paths"]["/v2/models/{name}"]["get"]["parameters"]
    assert [p["schema"]["enum"] for p in parameters if p["name"] == "name"] == [sorted(TASKS)]
    metrics = server.send("GET", "/metrics")[1].decode()
    assert 'hyperformer_requests_total{status="404",task=""} 1.0' in metrics
    assert 'hyperformer_requests_total{status="404",task="unknown"}' not in metrics


def test_a_missing_input_is_empty_and_a_number_is_to_be_sent_as_text(server):
    texts = {"Review Text": "a dull film"}
    status, body, _ = server.infer("v2", [texts])
    everything = server.infer("v2", [dict.fromkeys(COLUMNS, "") | texts])[1]
    assert (status, body) == (200, everything)
    for value in (7, None, True):
        status, body, _ = server.infer("v2", [{"Review Text": value}])
        assert status == 400
        assert 'Send the text of each value, such as "7" for the number 7.' in body["error"]
    status, body, _ = server.infer("v2", [{"no\n<b>": ""}])
    assert (status, body["error"].partition(";")[0]) == (400, r"unknown input 'no\n<b>'")


def test_the_columns_of_csv_have_different_names(odd, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    assert main(["predict", "--csv", str(odd), str(rows)]) == 0
    table = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))
    assert table[0] == ["label", *(f"probability_{label}" for label in LABELS), "truncated"]
    assert [row[0] for row in table[1:]] == [answer.label for answer in Bundle(odd).answer(ROWS)]
