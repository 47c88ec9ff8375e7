"""Tests of string graphs: they answer as their bundle does, and bundles that cannot become one are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions
import pytest
from toys import task_settings

from hyperformer.cli import main
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import MANIFEST, TOKENIZER
from hyperformer.runtime import Bundle
from hyperformer.serving.string_graph import write_string_graph

COLUMNS = {"mood": ["sentence"], "mood3": ["sentence"], "likeness": ["a", "b"]}


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a session as a deployment would, without this project's code."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("task", sorted(task_settings()))
def test_strings_become_the_answers_of_the_bundle(bundles, tmp_path, task):
    written = write_string_graph(bundles / task, tmp_path / "task.onnx")
    bundle, session = Bundle(bundles / task), open_session(tmp_path / "task.onnx")
    assert [value.name for value in session.get_inputs()] == written.inputs == COLUMNS[task]
    assert [value.name for value in session.get_outputs()] == written.outputs
    rows = [dict.fromkeys(COLUMNS[task], text) for text in ("the film is dull", "", "A FILM? " * 60)]
    inputs = {column: np.array([row[column] for row in rows], dtype=object) for column in COLUMNS[task]}
    outputs = dict(zip(written.outputs, session.run(None, inputs), strict=True))
    for number, answer in enumerate(bundle.answer(rows)):
        assert outputs["label"][number] == answer.label
        assert outputs["probabilities"][number].tolist() == pytest.approx(list(answer.probabilities.values()), abs=1e-5)
        assert outputs["truncated"][number] == answer.truncated == (number == 2)
        if answer.value is not None:
            assert outputs["value"][number] == pytest.approx(answer.value, abs=1e-4)


def test_a_bundle_that_is_not_published_becomes_a_string_graph_only_if_allowed(bundles, tmp_path, capsys):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, "published": False}))
    command = ["strings", str(folder), str(tmp_path / "mood.onnx")]
    assert main(command) == 1
    assert "mood is not published, because the model of task 'mood'" in capsys.readouterr().err
    assert main([*command, "--allow-unpublished"]) == 0


def test_the_same_bundle_is_the_same_bytes(bundles, tmp_path):
    for name in ("first.onnx", "second.onnx"):
        write_string_graph(bundles / "mood", tmp_path / name)
    assert sha256(tmp_path / "first.onnx") == sha256(tmp_path / "second.onnx")


def test_the_command_compares_given_rows_too(bundles, tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text("sentence\na dull film\na good film\n", encoding="utf-8")
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "mood.onnx"), str(rows)]) == 0
    output = capsys.readouterr().out
    assert "mood.onnx: sentence -> label, scores, probabilities, truncated; tokens and answers match" in output
    assert "on 11 rows" in output
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "mood.bin")]) == 1
    assert "expected a file name that ends in .onnx, in an existing folder" in capsys.readouterr().err


def test_a_row_that_is_encoded_differently_leaves_no_file(bundles, tmp_path):
    with pytest.raises(HyperFormerError, match=r"task's tokenizer encode 'sentence: a\\x00b' differently"):
        write_string_graph(bundles / "mood", tmp_path / "mood.onnx", [{"sentence": "a\0b"}])
    assert not list(tmp_path.iterdir())


def copy_changed(bundle: Path, folder: Path, files: dict[str, bytes], **changes: object) -> Path:
    """Copy a bundle with changed files and fields of its manifest, and valid checksums."""
    shutil.copytree(bundle, folder)
    description = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, content in files.items():
        (folder / name).write_bytes(content)
        description["files"][name] = sha256(folder / name)
    (folder / MANIFEST).write_text(json.dumps({**description, **changes}), encoding="utf-8")
    return folder


def test_a_bundle_that_cannot_be_one_graph_is_refused(bundles, shared_base, tmp_path):
    graph = tmp_path / "mood.onnx"
    with pytest.raises(HyperFormerError, match="mood uses a shared base; expected a separate bundle"):
        write_string_graph(shared_base / "mood", graph)
    external = copy_changed(bundles / "mood", tmp_path / "external", {"model.onnx.data": b"0"})
    with pytest.raises(HyperFormerError, match=r"model.onnx has external constants; expected a single file"):
        write_string_graph(external, graph)
    tokenizer = json.loads((bundles / "mood" / TOKENIZER).read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    other = copy_changed(bundles / "mood", tmp_path / "other", {TOKENIZER: json.dumps(tokenizer).encode()})
    with pytest.raises(HyperFormerError, match="the tokenizer is BPE with normalizer Sequence; expected BERT's"):
        write_string_graph(other, graph)
    assert not graph.exists()


def test_columns_may_have_the_names_of_inner_values_of_the_graph(bundles, tmp_path):
    inner = onnx.load(bundles / "mood" / "model.onnx").graph.node[0].output[0]
    assert inner.isidentifier()
    same = copy_changed(bundles / "mood", tmp_path / "same", {}, text=f"mood: {{{inner}}}")
    assert write_string_graph(same, tmp_path / "same.onnx").inputs == [inner]


def test_the_command_prints_the_names_of_the_inputs(bundles, tmp_path, capsys):
    same = copy_changed(bundles / "mood", tmp_path / "same", {}, text="mood: {sentence} {scores}")
    assert main(["strings", str(same), str(tmp_path / "same.onnx"), '{"sentence": 7.0, "scores": true}']) == 0
    assert "same.onnx: sentence, column:scores -> label, scores, probabilities, truncated" in capsys.readouterr().out


def test_the_files_of_the_bundle_are_never_overwritten(bundles, tmp_path, capsys):
    bundle = shutil.copytree(bundles / "mood", tmp_path / "mood")
    for name in ("model.onnx", "strings.onnx"):
        assert main(["strings", str(bundle), str(bundle / name)]) == 1
        assert "is inside the bundle; expected a path outside of it" in capsys.readouterr().err
    assert main(["verify", str(bundle)]) == 0


def test_a_text_may_use_a_column_twice(bundles, tmp_path):
    twice = copy_changed(bundles / "mood", tmp_path / "twice", {}, text="{sentence}. {sentence}")
    assert write_string_graph(twice, tmp_path / "twice.onnx").inputs == ["sentence"]


def test_an_invalid_row_is_reported_with_its_line(bundles, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"sentence": "good"}\n{"text": "bad"}\n')
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "mood.onnx"), str(tmp_path / "rows.jsonl")]) == 1
    assert "rows.jsonl, line 2: the row has no 'sentence'" in capsys.readouterr().err
    assert not (tmp_path / "mood.onnx").exists()
    (tmp_path / "taken.onnx").mkdir()
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "taken.onnx")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "taken.onnx"]
