"""The `hyperformer` command."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hyperformer.cli import main
from hyperformer.core.manifest import MANIFEST
from hyperformer.runtime import load

ROWS = [{"sentence": "the film is dull"}, {"sentence": "a lovely café"}]


def test_predict_prints_a_json_line_for_each_row(bundles, capsys):
    assert main(["predict", str(bundles / "mood"), *map(json.dumps, ROWS)]) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    expected = load(bundles / "mood").answer(ROWS)
    assert lines == [{"label": answer.label, "probabilities": answer.probabilities} for answer in expected]
    assert printed.err == ""


def test_a_regression_task_also_prints_its_value(bundles, capsys):
    row = {"a": "good", "b": "good"}
    assert main(["predict", str(bundles / "likeness"), json.dumps(row)]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(load(bundles / "likeness")(row).value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "good"}', "the row has no 'sentence'"),
        ("good", "got 'good'; expected rows as a JSON object, a file (.csv, .tsv,"),
        ("{good}", "row 1: invalid JSON ("),
        ("[1]", "not a JSON object"),
        ('{"sentence": ["good"]}', "the row's 'sentence' is a list, expected a string, a number or a boolean"),
        ("nowhere.csv", "cannot read nowhere.csv (No such file or directory)"),
        ('{"sentence": null}', "the row's 'sentence' is null, expected a string, a number or a boolean"),
    ],
)
def test_an_invalid_row_is_one_line_on_stderr(bundles, capsys, row, message):
    assert main(["predict", str(bundles / "mood"), row]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("hyperformer: ")
    assert message in printed.err


def test_a_folder_that_is_not_a_bundle_is_one_line_on_stderr(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "{}"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert str(tmp_path) in printed.err


@pytest.mark.parametrize("start", [["-m", "hyperformer.cli"], ["hyperformer"]], ids=["module", "script"])
def test_the_command_exits_with_its_exit_code(bundles, start):
    command = [sys.executable, *start] if start[0] == "-m" else [str(Path(sys.executable).with_name(start[0]))]
    for row, code in ((json.dumps(ROWS[0]), 0), ("{}", 1)):
        done = subprocess.run(
            [*command, "predict", str(bundles / "mood"), row], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code
        assert bool(done.stdout) == (code == 0)
        assert bool(done.stderr) == (code == 1)


def test_files_of_rows_are_answered_in_order_and_in_chunks(bundles, tmp_path, capsys):
    rows = [{"sentence": f"the {noun} is dull"} for noun in ("film", "book", "song", "story", "play", "garden", "café")]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    with (tmp_path / "rows.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, ["id", "sentence"])
        table.writeheader()
        table.writerows({"id": i, **row} for i, row in enumerate(rows))
    expected = [answer.probabilities["positive"] for answer in load(bundles / "mood").answer(rows)]
    for name in ("rows.jsonl", "rows.csv"):
        assert main(["predict", "--chunk", "3", str(bundles / "mood"), str(tmp_path / name)]) == 0
        scores = [json.loads(line)["probabilities"]["positive"] for line in capsys.readouterr().out.splitlines()]
        assert scores == pytest.approx(expected, abs=1e-5)


class Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_standard_input_is_refused(bundles, capsys, monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    assert main(["predict", str(bundles / "mood"), "-"]) == 1
    assert capsys.readouterr().err == "hyperformer: standard input has no rows; expected at least one\n"


@pytest.mark.parametrize(
    ("name", "content", "answered", "message"),
    [
        (
            "r.csv",
            b"sentence\ngood\nThe plot is dull, but the film is good.\n",
            1,
            "line 3: 2 cells, more cells than the header has (1)",
        ),
        ("r.csv", b'sentence\ngood\n"The film\nis dull.\n', 1, "line 3: a quote opens a cell and nothing closes it"),
        ("r.csv", b'sentence\n"a\nb"\n"abc"def\n', 1, "line 4: text follows the closing quote"),
        (
            "r.jsonl",
            b'{"sentence": "good"}\n\n{"sentence": "caf\xff"}\n',
            1,
            "line 3: the row's 'sentence' has the byte 0xff after 'caf'",
        ),
        (
            "r.jsonl",
            b'{"sentence": "good"}\n{"sentence": "\\ud83d"}\n',
            1,
            "line 2: the row's 'sentence' has an invalid character",
        ),
        (
            "r.jsonl",
            b'{"sentence": "good"}\n' + b"[" * 20_000 + b"\n",
            1,
            "line 2: invalid JSON (nested too deeply)",
        ),
        ("r.JSONL", b'{"sentence": "good"}\n[1]\n', 1, "line 2: not a JSON object"),
        (
            "r.jsonl",
            b'{"sentence": "good"}\n{"sentence": "a", "sentence": "b"}\n',
            1,
            "line 2: duplicate key 'sentence'",
        ),
        ("r.jsonl", b'{"sentence": "good"}\n{"sentence": [true]}\n', 1, "line 2: the row's 'sentence' is a list"),
        ("r.jsonl", b'{"sentence": "good"}\n{"sentence": NaN}\n', 1, "line 2: 'sentence' is NaN; expected a text"),
        (
            "r.jsonl",
            b'{"sentence": "good"}\n{"text": "x", "id": 1}\n',
            1,
            "the row has no 'sentence'; its columns are 'text', 'id'",
        ),
    ],
)
def test_an_invalid_row_of_a_file_is_named_by_its_line_and_earlier_rows_are_answered(
    bundles, tmp_path, capsys, name, content, answered, message
):
    (tmp_path / name).write_bytes(content)
    assert main(["predict", str(bundles / "mood"), str(tmp_path / name)]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == answered
    assert message in printed.err
    assert printed.err.endswith(f"(rows predicted before it: {answered})\n")
    assert len(printed.err.splitlines()) == 1


def test_a_duplicate_column_is_refused(bundles, tmp_path, capsys):
    (tmp_path / "r.csv").write_text("sentence,id,sentence\na,1,b\n")
    assert main(["predict", str(bundles / "mood"), str(tmp_path / "r.csv")]) == 1
    assert "has two columns 'sentence'" in capsys.readouterr().err


def test_rows_from_a_pipe_are_answered_as_they_arrive(bundles):
    command = [sys.executable, "-m", "hyperformer.cli", "predict", "--chunk", "1", str(bundles / "mood"), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        for row in ROWS[:2]:
            running.stdin.write(json.dumps(row) + "\n")
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["label"]  # the pipe is still open
        running.stdin.close()
        assert running.wait(60) == 0


@pytest.mark.parametrize("chunk", ["0", "-1", "many"])
def test_an_invalid_chunk_size_is_refused(bundles, capsys, chunk):
    with pytest.raises(SystemExit) as end:
        main(["predict", f"--chunk={chunk}", str(bundles / "mood"), json.dumps(ROWS[0])])
    assert end.value.code == 2
    assert f"got '{chunk}'; expected a positive integer" in capsys.readouterr().err


def test_a_missing_or_unlisted_file_is_named(bundles, tmp_path, capsys):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    (folder / "model.int8.onnx").unlink()
    assert main(["inspect", str(folder)]) == 0
    assert "missing       model.int8.onnx" in capsys.readouterr().out
    shutil.copy(bundles / "mood" / "model.int8.onnx", folder)
    (folder / "more.onnx").write_bytes(b"")
    assert main(["verify", str(folder)]) == 1
    assert "contains more.onnx, which its manifest does not list" in capsys.readouterr().err


def test_a_csv_field_of_any_length_is_read(bundles, tmp_path, capsys):
    (tmp_path / "r.csv").write_text("sentence\n" + "good " * 40_000)
    assert main(["predict", str(bundles / "mood"), str(tmp_path / "r.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["truncated"]


@pytest.mark.parametrize("command", ["predict", "inspect", "verify"])
def test_a_file_instead_of_a_bundle_is_refused(bundles, capsys, command):
    more = [json.dumps(ROWS[0])] if command == "predict" else []
    assert main([command, str(bundles / "mood" / "model.onnx"), *more]) == 1
    assert "is not a bundle" in capsys.readouterr().err


def test_every_bundle_of_a_folder_is_verified_and_each_error_named(bundles, tmp_path, capsys):
    root = shutil.copytree(bundles, tmp_path / "all")
    (root / "likeness" / "tokenizer.json").write_text("{}")
    (root / "mood" / "manifest.json").unlink()
    assert main(["verify", str(root)]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("mood3: ")
    assert "likeness/tokenizer.json is not the file that was exported" in printed.err
    assert "mood has no manifest.json" in printed.err


def test_a_reader_that_stops_early_is_no_error(bundles, tmp_path):
    (tmp_path / "r.jsonl").write_text("\n".join([json.dumps(ROWS[0])] * 600))
    command = f"{sys.executable} -m hyperformer.cli predict {bundles / 'mood'} {tmp_path / 'r.jsonl'} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_answers_that_cannot_be_written_are_an_error(bundles):
    command = f"{sys.executable} -m hyperformer.cli predict {bundles / 'mood'} '{json.dumps(ROWS[0])}' > /dev/full"
    for buffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
        done = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert "cannot write the answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_standard_input_is_read_and_csv_is_written(bundles, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin("\n".join(map(json.dumps, ROWS)).encode("utf-8-sig")))
    assert main(["predict", "--csv", str(bundles / "mood"), "-"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = load(bundles / "mood").answer(ROWS)
    assert [row["label"] for row in table] == [answer.label for answer in expected]
    assert [float(row["probability_positive"]) for row in table] == pytest.approx(
        [a.probabilities["positive"] for a in expected]
    )


def test_rows_before_an_invalid_one_are_answered_and_its_line_is_named(bundles, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([json.dumps(ROWS[0]), json.dumps(ROWS[1]), '{"text": "x"}', json.dumps(ROWS[0])]))
    assert main(["predict", str(bundles / "mood"), str(file)]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert printed.err.startswith(f"hyperformer: {file}, line 3: the row has no 'sentence'")
    assert printed.err.endswith("(rows predicted before it: 2)\n")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_an_empty_file_is_refused(bundles, tmp_path, capsys, name):
    (tmp_path / name).write_text("sentence\n" if name.endswith("csv") else "\n")
    assert main(["predict", str(bundles / "mood"), str(tmp_path / name)]) == 1
    assert "expected at least one" in capsys.readouterr().err


def test_truncated_texts_are_marked_and_counted(bundles, capsys):
    rows = [ROWS[0], {"sentence": "wonderful " * 60}]
    assert main(["predict", str(bundles / "mood"), *map(json.dumps, rows)]) == 0
    printed = capsys.readouterr()
    assert ["truncated" in json.loads(line) for line in printed.out.splitlines()] == [False, True]
    assert printed.err == "hyperformer: truncated 1 of 2 texts to 32 tokens\n"


def test_a_folder_of_tasks_is_inspected_and_verified_as_a_whole(bundles, capsys):
    assert main(["inspect", str(bundles)]) == 0
    output = capsys.readouterr().out
    assert all(f"{task}\n" in output for task in ("mood", "mood3", "likeness"))
    assert "sentence: {sentence}" in output
    assert main(["verify", str(bundles)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["predict", str(bundles), json.dumps(ROWS[0])]) == 1
    assert (
        "contains the tasks likeness, mood, mood3; expected one task. Use the folder of a single task."
        in capsys.readouterr().err
    )


def test_a_task_that_is_not_published_answers_only_if_allowed_and_is_always_verified(bundles, tmp_path, capsys):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, "published": False}))
    assert main(["predict", str(folder), json.dumps(ROWS[0])]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"hyperformer: {folder} is not published, because the model of task 'mood' is no better than the majority "
        "baseline on validation. Train a better model, or allow it with --allow-unpublished on the command line, or "
        "allow_unpublished=True in Python.\n"
    )
    assert main(["predict", "--allow-unpublished", str(folder), json.dumps(ROWS[0])]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == load(bundles / "mood")(ROWS[0]).label
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.endswith(" files match their checksums, not published\n")
    assert main(["inspect", str(folder)]) == 0
    assert "published     no, because it is no better" in capsys.readouterr().out


def test_a_changed_file_fails_verification(bundles, tmp_path, capsys):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    (folder / "README.md").write_text("something else")
    assert main(["verify", str(folder)]) == 1
    assert "README.md is not the file that was exported" in capsys.readouterr().err
