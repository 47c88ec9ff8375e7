"""A task as one graph from strings to its label: the bundle's answers, and what is refused."""

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
from hyperformer.manifest import FILE, TOKENIZER, sha256
from hyperformer.runtime import Bundle
from hyperformer.string_graph import write_string_graph
from hyperformer.types import HyperFormerError

COLUMNS = {"mood": ["sentence"], "mood3": ["sentence"], "likeness": ["a", "b"]}


def opened(path: Path) -> onnxruntime.InferenceSession:
    """As who deploys it would, without a word of this project."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("task", sorted(task_settings()))
def test_strings_become_the_answers_of_the_bundle(bundles, tmp_path, task):
    written = write_string_graph(bundles / task, tmp_path / "task.onnx")
    bundle, session = Bundle(bundles / task), opened(tmp_path / "task.onnx")
    assert [one.name for one in session.get_inputs()] == written.columns == COLUMNS[task]
    assert [one.name for one in session.get_outputs()] == written.outputs
    rows = [dict.fromkeys(COLUMNS[task], text) for text in ("the film is dull", "", "A FILM? " * 60)]
    given = {column: np.array([row[column] for row in rows], dtype=object) for column in COLUMNS[task]}
    found = dict(zip(written.outputs, session.run(None, given), strict=True))
    for number, answer in enumerate(bundle.answer(rows)):
        assert found["label"][number] == answer.label
        assert found["probabilities"][number].tolist() == pytest.approx(list(answer.probabilities.values()), abs=1e-5)
        assert found["truncated"][number] == answer.truncated == (number == 2)
        if answer.value is not None:
            assert found["value"][number] == pytest.approx(answer.value, abs=1e-4)


def test_the_same_bundle_is_the_same_bytes(bundles, tmp_path):
    for name in ("one.onnx", "other.onnx"):
        write_string_graph(bundles / "mood", tmp_path / name)
    assert sha256(tmp_path / "one.onnx") == sha256(tmp_path / "other.onnx")


def test_the_command_compares_given_rows_too(bundles, tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text("sentence\na dull film\na good film\n", encoding="utf-8")
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "mood.onnx"), str(rows)]) == 0
    said = capsys.readouterr().out
    assert "mood.onnx: sentence -> label, scores, probabilities, truncated; tokens and answers match" in said
    assert "on 11 rows" in said
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "mood.bin")]) == 1
    assert "expected a file name that ends in .onnx, in an existing folder" in capsys.readouterr().err


def test_a_row_that_would_be_read_otherwise_leaves_nothing_behind(bundles, tmp_path):
    with pytest.raises(HyperFormerError, match=r"reads 'sentence: a\\x00b' otherwise than the task's tokenizer"):
        write_string_graph(bundles / "mood", tmp_path / "mood.onnx", [{"sentence": "a\0b"}])
    assert not list(tmp_path.iterdir())


def changed(bundle: Path, folder: Path, files: dict[str, bytes], **changes: object) -> Path:
    """A copy of a bundle with other files and words in its manifest, signed as if it were exported."""
    shutil.copytree(bundle, folder)
    said = json.loads((folder / FILE).read_text(encoding="utf-8"))
    for name, content in files.items():
        (folder / name).write_bytes(content)
        said["files"][name] = sha256(folder / name)
    (folder / FILE).write_text(json.dumps({**said, **changes}), encoding="utf-8")
    return folder


def test_what_cannot_be_one_graph_is_refused(bundles, shared_base, tmp_path):
    graph = tmp_path / "mood.onnx"
    with pytest.raises(HyperFormerError, match="mood is on a shared base: export a bundle of its own"):
        write_string_graph(shared_base / "mood", graph)
    apart = changed(bundles / "mood", tmp_path / "apart", {"model.onnx.data": b"0"})
    with pytest.raises(HyperFormerError, match=r"model.onnx has its constants in a file of its own; give tokens to"):
        write_string_graph(apart, graph)
    clash = changed(bundles / "mood", tmp_path / "clash", {}, text="mood: {scores}")
    with pytest.raises(HyperFormerError, match="the task's column 'scores' is named as a value of its graph"):
        write_string_graph(clash, graph)
    described = json.loads((bundles / "mood" / TOKENIZER).read_text(encoding="utf-8"))
    described["pre_tokenizer"] = {"type": "Whitespace"}
    other = changed(bundles / "mood", tmp_path / "other", {TOKENIZER: json.dumps(described).encode()})
    with pytest.raises(HyperFormerError, match="the tokenizer is BPE with the normalizer Sequence, expected BERT's"):
        write_string_graph(other, graph)
    assert not graph.exists()


def test_values_of_the_graph_and_columns_do_not_meet(bundles, tmp_path):
    inner = onnx.load(bundles / "mood" / "model.onnx").graph.node[0].output[0]
    assert inner.isidentifier()
    same = changed(bundles / "mood", tmp_path / "same", {}, text=f"mood: {{{inner}}}")
    assert write_string_graph(same, tmp_path / "same.onnx").columns == [inner]


def test_the_bundles_own_files_are_never_written_over(bundles, tmp_path, capsys):
    own = shutil.copytree(bundles / "mood", tmp_path / "mood")
    for name in ("model.onnx", "strings.onnx"):
        assert main(["strings", str(own), str(own / name)]) == 1
        assert "is in the bundle itself, whose files are signed; write it beside the bundle" in capsys.readouterr().err
    assert main(["verify", str(own)]) == 0


def test_a_column_may_stand_twice_in_a_text(bundles, tmp_path):
    twice = changed(bundles / "mood", tmp_path / "twice", {}, text="{sentence}. {sentence}")
    assert write_string_graph(twice, tmp_path / "twice.onnx").columns == ["sentence"]


def test_a_mistake_in_a_row_is_told_with_its_place(bundles, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"sentence": "good"}\n{"text": "bad"}\n')
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "mood.onnx"), str(tmp_path / "rows.jsonl")]) == 1
    assert "rows.jsonl, line 2: the row has no 'sentence'" in capsys.readouterr().err
    assert not (tmp_path / "mood.onnx").exists()
    (tmp_path / "taken.onnx").mkdir()
    assert main(["strings", str(bundles / "mood"), str(tmp_path / "taken.onnx")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "taken.onnx"]
