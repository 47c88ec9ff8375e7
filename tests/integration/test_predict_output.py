"""`predict --output`: files of answers beside columns of the rows, and runs that were stopped."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from hyperformer.cli import answer_files, main, predict
from hyperformer.runtime import load

ROWS = [{"id": i, "sentence": f"the film is {word}", "note": None if i == 1 else "x"} for i, word in enumerate(
    ["dull", "lovely", "a clumsy, slow one", "bright", "wicked"]
)]  # fmt: skip


@pytest.fixture
def rows(tmp_path):
    """Return a file of rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def run(bundles, rows, tmp_path, capsys):
    """Return a function that answers the rows into a file, and returns the exit code, the file and the errors."""

    def answer(name="answers.csv", *options, task="mood", source=rows):
        code = main(["predict", str(bundles / task), str(source), "--output", str(tmp_path / name), *options])
        return code, tmp_path / name, capsys.readouterr().err

    return answer


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_answers_are_those_of_the_bundle_beside_the_columns_that_are_kept(run, bundles):
    code, path, error = run("answers.csv", "--keep", "note,id", "--chunk", "2")
    assert (code, error) == (0, "")
    answers, table = load(bundles / "mood").answer(ROWS), read_table(path)
    assert list(table[0]) == ["note", "id", "label", "probability_negative", "probability_positive", "truncated"]
    assert [row["id"] for row in table] == [str(row["id"]) for row in ROWS]
    assert [row["note"] for row in table] == ["x", "", "x", "x", "x"]
    assert [row["label"] for row in table] == [answer.label for answer in answers]
    for row, answer in zip(table, answers, strict=True):
        assert float(row["probability_positive"]) == pytest.approx(answer.probabilities["positive"], abs=1e-6)
    assert not path.with_name("answers.csv.partial").exists()


@pytest.mark.parametrize("name", ["answers.csv", "answers.jsonl", "answers.parquet"])
def test_every_format_has_the_same_table(name, run):
    code, path, _ = run(name, "--keep", "all")
    assert code == 0
    if name.endswith("csv"):
        table = read_table(path)
    elif name.endswith("jsonl"):
        table = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        table = parquet.read_table(path).to_pylist()
        assert isinstance(table[0]["probability_positive"], float)
        assert table[0]["truncated"] is False
        assert table[1]["note"] is None
    assert [row["sentence"] for row in table] == [row["sentence"] for row in ROWS]
    assert list(table[0])[:4] == ["id", "sentence", "note", "label"]


def test_a_regression_has_its_value(run, tmp_path):
    source = tmp_path / "pairs.csv"
    source.write_text("a,b\ngood,good\nbad,good\n")
    _, path, _ = run("answers.parquet", task="likeness", source=source)
    assert parquet.read_schema(path).names[:2] == ["label", "value"]


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv", "answers.parquet"])
@pytest.mark.parametrize(("cut", "complete"), [(0, 4), (3, 2)])
def test_a_run_that_was_stopped_continues_with_the_same_result(name, cut, complete, run, monkeypatch, tmp_path):
    _, straight, _ = run(f"straight.{name}", "--chunk", "2")
    write, calls = answer_files.AnswerFile.write, []

    def stop(self, records):
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, records)

    monkeypatch.setattr(answer_files.AnswerFile, "write", stop)
    assert run(name, "--chunk", "2")[0] == 130
    partial = tmp_path / f"{name}.partial"
    assert len(partial.read_text().splitlines()) == 5  # the header and two chunks
    if cut:  # the last line was not written completely
        partial.write_bytes(partial.read_bytes()[:-cut])
    assert not (tmp_path / name).exists()
    monkeypatch.setattr(answer_files.AnswerFile, "write", write)
    answered, answer_chunk = [], predict._answer_chunk

    def count(*arguments):
        chunk = answer_chunk(*arguments)
        answered.extend(chunk.answers)
        return chunk

    monkeypatch.setattr(predict, "_answer_chunk", count)
    code, path, error = run(name, "--chunk", "2")
    assert code == 0
    assert f"{complete} rows are answered already in {partial}" in error
    assert len(answered) == len(ROWS) - complete
    assert path.read_bytes() == straight.read_bytes()


def test_a_partial_file_of_another_run_is_not_continued(run, tmp_path, bundles):
    (tmp_path / "answers.csv.partial").write_text('{"task": "other"}\n{"label": "x"}\n')
    code, path, error = run()
    assert code == 1
    assert "has the answers of a run with other rows, options or another task" in error
    assert not path.exists()


def test_an_invalid_row_leaves_the_answers_before_it(run, tmp_path):
    source = tmp_path / "bad.jsonl"
    source.write_text('{"sentence": "good"}\n{"sentence": null}\n')
    code, path, error = run(source=source)
    assert code == 1
    assert "bad.jsonl, line 2: 'sentence' is null" in error
    assert "(rows predicted before it: 1)" in error
    assert not path.exists()
    assert len((tmp_path / "answers.csv.partial").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["answers.txt"], "answers.txt; expected a file .csv, .jsonl, .parquet"),
        (["answers.csv", "--keep", "nothing"], "has no column 'nothing'"),
        (["answers.csv", "--csv"], "--csv is for answers on standard output"),
    ],
)
def test_what_cannot_be_written_is_refused(arguments, message, run):
    code, _, error = run(*arguments)
    assert code == 1
    assert message in error


def test_a_column_of_the_answers_cannot_be_kept(run, tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("sentence,label\ngood,positive\n")
    assert "the column 'label' is also a column of the answers" in run("answers.csv", "--keep", "all", source=source)[2]


def test_an_existing_file_is_not_overwritten(run, tmp_path):
    (tmp_path / "answers.csv").write_text("mine")
    assert "exists already, and nothing is overwritten" in run()[2]
    assert (tmp_path / "answers.csv").read_text() == "mine"


def test_columns_are_kept_only_in_a_file(bundles, rows, capsys):
    assert main(["predict", str(bundles / "mood"), str(rows), "--keep", "id"]) == 1
    assert "--keep needs a file of answers" in capsys.readouterr().err


def test_json_objects_and_standard_input_have_columns_to_keep(bundles, tmp_path, capsys, monkeypatch):
    row = '{"sentence": "good", "id": 7}'
    path = tmp_path / "answers.csv"
    assert main(["predict", str(bundles / "mood"), row, "--output", str(path), "--keep", "all"]) == 0
    assert read_table(path)[0]["id"] == "7"
    assert main(["predict", str(bundles / "mood"), "-", "--output", str(tmp_path / "b.csv"), "--keep", "all"]) == 1
    assert "the columns of standard input are not known" in capsys.readouterr().err


def test_progress_on_a_terminal_has_speed_and_remaining_time(run, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, _, error = run("answers.csv", "--chunk", "2")
    assert "2 of about 5 rows, " in error
    assert " rows/s, 0:00 left" in error
