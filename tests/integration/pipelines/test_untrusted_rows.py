"""The files that a run opens, and rows that contain markup, paths and commands."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from processes import kedro

from hyperformer import cli
from hyperformer.data.storage import read_rows

ODD = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "{{7*7}} ${7*7} #{7*7} {text} {0.__class__}",
    "../../../etc/passwd",
    "file:///etc/passwd",
    "\x1b[31mred\x1b[0m\x07",
    "'; DROP TABLE rows; --",
    '"><svg/onload=alert(3)>',
    "=HYPERLINK(A1)",
    "$(touch sprung) `touch sprung`",
    "%s %n %(text)s",
    "</td></tr></table>",
]
ENDINGS = {
    ".arrow", ".csv", ".html", ".json", ".lock", ".md", ".new", ".old", ".onnx", ".parquet", ".safetensors", ".svg",
    ".tsv", ".txt", ".model", ".data", "",
}  # fmt: skip
STATE_ENDINGS = {".pt", ".pth", ".bin"}
"""Endings of resume states, which stay on one machine; torch loads only numbers from them."""


def test_a_run_executes_nothing_that_it_reads_and_writes_only_to_its_folders(tree, audit, shared_traces):
    assert audit.unpickled == set()
    data = tree / "data"
    opened = {path for path, _ in audit.opened if path.is_relative_to(data)}
    assert len(opened) > 50
    states = {path for path in opened if ".states" in path.parts}
    assert {path.suffix for path in opened - states} <= ENDINGS
    assert {path.suffix for path in states} <= ENDINGS | STATE_ENDINGS
    outside = {path for path, writes in audit.opened if writes and not path.is_relative_to(data)}
    remaining = {path for path in outside if path.is_file() and not path.is_relative_to(shared_traces)}
    assert {path for path in remaining if not {"__pycache__", ".viz"} & set(path.parts)} == set()


@pytest.fixture(scope="module")
def odd(tree, tmp_path_factory) -> tuple[Path, str]:
    """Return a project after a run on such rows and labels, and the output of the run."""
    copy = shutil.copytree(tree, tmp_path_factory.mktemp("odd") / "tree")
    rows = copy / "rows"
    rows.mkdir()
    for number, split in enumerate(("train", "validation", "test")):
        table = [{"text": f"{text} {number} {turn}", "kind": f"{ODD[turn % 2]}"} for text in ODD for turn in range(2)]
        pd.DataFrame(table).to_csv(rows / f"{split}.csv", index=False)
    task = {
        "source": {"path": str(rows)}, "text": "{text}", "kind": "classification", "label_column": "kind",
        "labels": {ODD[0]: "<b>yes</b>", ODD[1]: "no | <i>no</i>"}, "metrics": ["accuracy"],
    }  # fmt: skip
    (copy / "conf" / "odd").mkdir()
    name = "<script>x<script>"
    settings = yaml.safe_load((copy / "conf" / "test" / "parameters.yml").read_text())
    settings["export"]["allow_below_majority"] = [name]
    (copy / "conf" / "odd" / "parameters.yml").write_text(yaml.safe_dump(settings))
    (copy / "conf" / "odd" / "parameters_tasks.yml").write_text(yaml.safe_dump({"tasks": {name: task}}))
    profiled = kedro(copy, "--pipelines", "data_profile", "--params", "export.tolerance=1", env="odd")
    result = kedro(copy, "--params", "export.tolerance=1", env="odd")
    assert result.returncode == profiled.returncode == 0, profiled.stderr[-2000:] + result.stderr[-3000:]
    return copy, profiled.stdout + profiled.stderr + result.stdout + result.stderr


def test_odd_rows_are_stored_unchanged(odd):
    copy, _ = odd
    data = copy / "data" / "odd"
    (task,) = [path.name for path in (data / "03_primary" / "rows").iterdir()]
    expected = [f"{text} 2 {turn}" for text in ODD for turn in range(2)]
    assert [row["text"] for row in read_rows(data / "03_primary" / "rows", task, "test")] == expected
    with (data / "07_model_output" / "predictions" / task / "test.csv").open(newline="") as file:
        assert [row["source"] for row in csv.DictReader(file)] == expected


def test_odd_rows_are_escaped_in_reports_and_logs(odd):
    copy, output = odd
    data = copy / "data" / "odd"
    pages = [*(data / "08_reporting").rglob("*.html"), *(data / "08_reporting").rglob("*.svg")]
    assert len(pages) > 3
    for page in pages:
        text = page.read_text()
        for markup in ("<script", "<img", "<svg/onload", "<b>", "<i>", "</td></tr></table><"):
            assert markup not in text.replace("</td></tr></tbody></table>", ""), (page, markup)
    assert "\x1b[31m" not in output
    assert not list(copy.parent.rglob("sprung"))


def test_odd_rows_are_plain_text_to_the_command_line(odd, capsysbinary, tmp_path):
    copy, _ = odd
    (bundle,) = (copy / "data" / "odd" / "06_models" / "onnx").iterdir()
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ODD))
    assert cli.main(["predict", str(bundle), str(file)]) == 0
    answers = [json.loads(line) for line in capsysbinary.readouterr().out.decode().splitlines()]
    assert {answer["label"] for answer in answers} <= {"<b>yes</b>", "no | <i>no</i>"}
    assert len(answers) == len(ODD)
