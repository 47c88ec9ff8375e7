"""The `hyperformer` command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hyperformer.runtime import load
from hyperformer.runtime.cli import main

ROWS = [{"sentence": "the film is dull"}, {"sentence": "a lovely café"}]


def test_predict_prints_a_json_line_a_row(bundles, capsys):
    assert main(["predict", str(bundles / "mood"), *map(json.dumps, ROWS)]) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    wanted = load(bundles / "mood").answer(ROWS)
    assert lines == [{"label": answer.label, "probabilities": answer.probabilities} for answer in wanted]
    assert printed.err == ""


def test_a_graded_task_prints_its_number_too(bundles, capsys):
    row = {"a": "good", "b": "good"}
    assert main(["predict", str(bundles / "likeness"), json.dumps(row)]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(load(bundles / "likeness")(row).value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"text": "good"}', "the row has no 'sentence'"),
        ("good", "the row 'good' is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"sentence": null}', "the row has no 'sentence'"),
    ],
)
def test_a_mistake_in_a_row_is_one_line_on_stderr(bundles, capsys, row, words):
    assert main(["predict", str(bundles / "mood"), row]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("hyperformer: ")
    assert words in printed.err


def test_a_folder_that_is_no_bundle_is_one_line_on_stderr(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "{}"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert str(tmp_path) in printed.err


@pytest.mark.parametrize("start", [["-m", "hyperformer.runtime.cli"], ["hyperformer"]], ids=["module", "script"])
def test_the_command_ends_with_its_exit_code(bundles, start):
    command = [sys.executable, *start] if start[0] == "-m" else [str(Path(sys.executable).with_name(start[0]))]
    for row, code in ((json.dumps(ROWS[0]), 0), ("{}", 1)):
        done = subprocess.run(
            [*command, "predict", str(bundles / "mood"), row], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code
        assert bool(done.stdout) == (code == 0)
        assert bool(done.stderr) == (code == 1)
