"""Rows and task blocks as other people write them: read exactly, or refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import ROOT, Completed, copy_project, kedro
from pyarrow import parquet

CASES = Path(os.environ.get("HYPERFORMER_SHARED", ROOT.parent / "shared")) / "cases"
CLASSIFICATION = {
    "source": {"path": "rows"},
    "text": "{text}",
    "kind": "classification",
    "label_column": "label",
    "labels": {"pos": "positive", "neg": "negative"},
    "metrics": ["accuracy"],
    "splits": {"validation": "hold_out_2", "test": "hold_out_2"},
}
GENERATION = {
    **{name: CLASSIFICATION[name] for name in ("source", "text", "splits")},
    "kind": "generation",
    "label_column": "answer",
    "metrics": ["exact_match"],
}
TABLE = "text,label\n" + "".join(f"row {n},{('pos', 'neg')[n % 2]}\n" for n in range(8))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project in which nothing has run."""
    return copy_project(tmp_path_factory.mktemp("rows"))


def preprocess(project: Path, tasks: dict[str, Any] | str, **files: str) -> Completed:
    """Write files of rows and the tasks' blocks, and run preprocessing; `train_csv` is the file `rows/train.csv`."""
    shutil.rmtree(project / "rows", ignore_errors=True)
    (project / "rows").mkdir()
    for name, content in files.items():
        (project / "rows" / name.replace("_", ".")).write_text(content, encoding="utf-8", newline="")
    block = tasks if isinstance(tasks, str) else yaml.safe_dump({"tasks": tasks})
    (project / "conf/test/parameters_tasks.yml").write_text(block, encoding="utf-8")
    return kedro(project, "--pipelines", "preprocess")


def read_stored(project: Path, task: str = "x") -> list[dict[str, str]]:
    """Return the rows of all splits that preprocessing stored, sorted."""
    folder = project / "data/test/03_primary/rows" / task
    rows = [row for file in folder.glob("*.parquet") for row in parquet.read_table(file).to_pylist()]
    return sorted(rows, key=str)


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


READ = {
    "dates of JSON": (
        {"x": {**GENERATION, "text": "{question}"}},
        {"train_jsonl": lines([{"question": f"when {n}", "answer": f"2024-01-0{n}"} for n in range(1, 8)])},
        [{"question": f"when {n}", "answer": f"2024-01-0{n}"} for n in range(1, 8)],
    ),
    "numbers of JSON": (
        {"x": {**CLASSIFICATION, "labels": [0, 1]}},
        {"train_jsonl": lines([{"text": n / 2, "label": float(n % 2)} for n in range(8)])},
        [{"text": text, "label": str(n % 2)} for n, text in enumerate("0 0.5 1 1.5 2 2.5 3 3.5".split())],
    ),
    "an index": ({"x": CLASSIFICATION}, {"train_csv": "".join(f",{line}\n" for line in TABLE.splitlines())}, None),
    "a spreadsheet's semicolons": ({"x": CLASSIFICATION}, {"train_csv": "\ufeff" + TABLE.replace(",", ";")}, None),
    "a dollar sign": ("dollar", {"train_csv": TABLE}, None),
    "a name with a space": (
        {"x": {**CLASSIFICATION, "text": "{Review Text}"}},
        {"train_csv": TABLE.replace("text", "Review Text", 1)},
        [{"Review Text": f"row {n}", "label": ("pos", "neg")[n % 2]} for n in range(8)],
    ),
    "labels that are floats": (
        {"x": {**CLASSIFICATION, "labels": {1.0: "positive", 0.0: "negative"}}},
        {"train_csv": TABLE.replace("pos", "1.0").replace("neg", "0.0")},
        [{"text": f"row {n}", "label": ("1.0", "0.0")[n % 2]} for n in range(8)],
    ),
    "labels that are booleans": (
        {"x": {**CLASSIFICATION, "labels": {True: "positive", False: "negative"}}},
        {"train_csv": TABLE.replace("pos", "True").replace("neg", "False")},
        [{"text": f"row {n}", "label": ("True", "False")[n % 2]} for n in range(8)],
    ),
    "missing values that are empty": (
        {"x": {**CLASSIFICATION, "text": "{text} {more}", "missing": "empty"}},
        {"train_jsonl": lines([{"text": str(n), "more": None if n % 3 else "!", "label": "neg"} for n in range(8)])},
        [{"text": str(n), "more": "" if n % 3 else "!", "label": "neg"} for n in range(8)],
    ),
    "missing values that are dropped": (
        {"x": {**CLASSIFICATION, "missing": "drop"}},
        {"train_jsonl": lines([{"text": f"row {n}", "label": "neg" if n % 3 else None} for n in range(12)])},
        [{"text": f"row {n}", "label": "neg"} for n in range(12) if n % 3],
    ),
}  # fmt: skip
DOLLAR = yaml.safe_dump({"tasks": {"x": {**CLASSIFICATION, "text": "price: \\${text}"}}})


@pytest.mark.parametrize("kind", READ)
def test_rows_are_stored_as_the_file_has_them(project: Path, kind: str) -> None:
    tasks, files, expected = READ[kind]
    result = preprocess(project, DOLLAR if tasks == "dollar" else tasks, **files)
    assert result.returncode == 0, result.stderr
    rows = expected or [{"text": f"row {n}", "label": ("pos", "neg")[n % 2]} for n in range(8)]
    assert read_stored(project) == sorted(
        [{name: row[name] for name in read_stored(project)[0]} for row in rows], key=str
    )


REFUSED = {
    "a cell too many": (
        {"x": {**GENERATION, "text": "{question}"}},
        {"train_csv": "question,answer\n" + "question,answer,page 7\n" * 8},
        "train.csv, line 2: 3 cells, more cells than the header has (2). Quote texts that contain commas",
    ),
    "a backslash before a quote": (
        {"x": CLASSIFICATION},
        {"train_csv": TABLE + '"She said \\"hi\\" loud",pos\n'},
        'train.csv, line 10: a backslash before a quote (\\"); expected quotes in a cell to be doubled ("").',
    ),
    "a dollar sign before a brace": ({"x": {**CLASSIFICATION, "text": "price: ${text}"}}, {"train_csv": TABLE}, "\\${"),
    "a label that YAML reads as a boolean": (
        "tasks: {x: " + json.dumps(CLASSIFICATION).replace('{"pos": "positive", "neg"', '{no: "Norwegian", "se"') + "}",
        {"train_csv": TABLE.replace("pos", "no").replace("neg", "se")},
        'YAML reads the label no as False if it is not quoted; write "no" in `labels`.',
    ),
    "a task with a reserved name": ({"mean": CLASSIFICATION}, {"train_csv": TABLE}, "'mean'"),
    "unknown labels": (
        {"x": CLASSIFICATION},
        {"train_csv": TABLE + "a,POS\nb,POS\nc,\n"},
        "has unknown labels in column 'label': 'POS' (2 rows, first at line 10), '' (1 row, first at line 12)",
    ),
    "a URL": (
        {"x": {**CLASSIFICATION, "source": {"path": "s3://bucket/rows"}}},
        {},
        "the source 's3://bucket/rows' is a URL; expected a local folder",
    ),
    "a folder of a hub": (
        {"x": CLASSIFICATION},
        {"README_md": "", "train-00000-of-00001_parquet": ""},
        "has README.md, train-00000-of-00001.parquet; expected one file train.csv, .tsv, .jsonl or .parquet",
    ),
    "a missing folder": (
        {"x": {**CLASSIFICATION, "source": {"path": "~/no such folder"}}},
        {},
        "no such folder does not exist; expected one file train.csv",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_that_cannot_be_read_exactly_are_refused_in_one_sentence(project: Path, kind: str) -> None:
    tasks, files, message = REFUSED[kind]
    shutil.rmtree(project / "data", ignore_errors=True)
    result = preprocess(project, tasks, **files)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.startswith("Error: ")
    assert not (project / "data/test/03_primary/rows").exists()


OUTCOMES = {
    "01_shift": "line 2: 3 cells, more cells than the header has (2). Quote texts that contain commas",
    "02_dates": [{"question": "when 0", "answer": "2024-01-01"}],
    "03_numbers": [{"text": "0.5", "label": "pos"}, {"text": "7", "label": "neg"}],
    "04_index": [{"text": "row 0", "label": "pos"}],
    "05_vocabulary": [{"text": "😀", "label": "pos"}],
    "06_dollar": "\\${",
    "07_two_files": "parameters_more.yml",
    "08_space": [{"Review Text": "row 0", "label": "pos"}],
    "09_float_key": [{"text": "row 0", "label": "1.0"}],
    "10_norway": 'YAML reads the label no as False if it is not quoted; write "no" in `labels`.',
    "11_mean": "'mean'",
    "12_backslash": 'a backslash before a quote (\\"); expected quotes in a cell to be doubled ("").',
    "13_map": [{"text": "row 0", "label": "pos"}],
}


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases in {CASES}; set HYPERFORMER_SHARED to the folder of cases")
@pytest.mark.parametrize("case", OUTCOMES)
def test_a_reported_case_has_its_right_outcome(project: Path, case: str) -> None:
    shutil.rmtree(project / "data", ignore_errors=True)
    shutil.copytree(CASES / case, project / "rows" / case, dirs_exist_ok=True)
    environment = project / "conf/test"
    shutil.copy(CASES / case / "parameters_tasks.yml", environment)
    if case == "07_two_files":
        shutil.copy(CASES / case / "parameters_tasks.yml", environment / "parameters_more.yml")
    result = kedro(project, "--pipelines", "preprocess")
    (environment / "parameters_more.yml").unlink(missing_ok=True)
    expected = OUTCOMES[case]
    if isinstance(expected, str):
        assert result.returncode == 1
        assert expected in result.stderr
        assert "Traceback" not in result.stderr
    else:
        assert result.returncode == 0, result.stderr
        stored = read_stored(project)
        assert all(row in stored for row in expected)
