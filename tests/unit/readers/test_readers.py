"""Files as other tools write them: read exactly, or refused with file and row."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from hyperformer.core.errors import HyperFormerError
from hyperformer.readers import RowFile
from hyperformer.readers.texts import Missing


def read(path: Path, *columns: str, missing: Missing = None) -> list[tuple[Any, ...]]:
    return [tuple(texts) for _, texts in RowFile(path, columns or ("text", "label"), missing)]


def error_of(path: Path, *columns: str) -> str:
    with pytest.raises(HyperFormerError) as caught:
        read(path, *columns)
    return str(caught.value)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


ROW = [("007", "None")]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.csv", "text,label\n007,None\n", ROW),
        ("a.CSV", "text,label\n007,None\n", ROW),
        ("a.csv.gz", "text,label\n007,None\n", ROW),
        ("a.tsv", "text\tlabel\n007\tNone\n", ROW),
        ("a.tsv.gz", "text\tlabel\n007\tNone\n", ROW),
        ("a.jsonl", '{"text": "007", "label": "None"}\n', ROW),
        ("a.jsonl.gz", '{"label": "None", "other": {"text": 1}, "text": "007"}', ROW),
        ("no_newline_at_the_end.csv", "text,label\n007,None", ROW),
        ("byte_order_mark.csv", "\ufefftext,label\n007,None\n", ROW),
        ("byte_order_mark.jsonl", '\ufeff{"text": "007", "label": "None"}\n', ROW),
        ("carriage_returns.csv", "text,label\r\n007,None\r\n", ROW),
        ("old_macintosh.csv", "text,label\r007,None\r", ROW),
        ("semicolons_of_a_spreadsheet.csv", '"text";label\n007;None\n', ROW),
        ("tabs.csv", "text\tlabel\n007\tNone\n", ROW),
        ("index_of_a_data_frame.csv", ",text,label\n0,007,None\n", ROW),
        ("two_unused_columns_of_one_name.csv", "text,x,x,label\n007,1,2,None\n", ROW),
        ("unused_columns_without_a_name.csv", "text,label,,\n007,None,,\n", ROW),
        ("blank_lines.csv", "\ntext,label\n\n007,None\n\n", ROW),
        ("blank_lines.jsonl", '\n{"text": "007", "label": "None"}\n\r\n', ROW),
        ("bytes_of_an_unused_column.csv", b"text,label,x\n007,None,\xe9\n", ROW),
        ("values_of_an_unused_column.jsonl", '{"text": "007", "label": "None", "x": NaN, "x": 1e999}', ROW),
        ("delimiters_in_quotes.csv", 'text,label\n"a, ""b"";\tc",x\n', [('a, "b";\tc', "x")]),
        ("lines_in_quotes.csv", 'text,label\n"a\r\nb\n",x\n', [("a\r\nb\n", "x")]),
        ("spaces.csv", "text,label\n a , x\n", [(" a ", " x")]),
        ("empty_cells.csv", "text,label\n,\n", [("", "")]),
        ("quotes_inside.csv", 'text,label\n5" disk,x\n', [('5" disk', "x")]),
        ("words_that_others_take_for_missing.csv", "text,label\nNA,nan\nnull,\n", [("NA", "nan"), ("null", "")]),
        ("dates.jsonl", '{"text": "2024-01-01", "label": "1e3"}', [("2024-01-01", "1e3")]),
        ("separators_of_lines.jsonl", '{"text": "a\u2028b\u0085c", "label": "x"}\n', [("a\u2028b\u0085c", "x")]),
        ("numbers.jsonl", '{"text": 7.0, "label": 0.5}\n{"text": 7, "label": true}', [("7", "0.5"), ("7", "true")]),
        ("lines_in_quotes.tsv", 'text\tlabel\n"a\n""b"""\tx\n', [('a\n"b"', "x")]),
        ("carriage_returns_in_quotes.csv", 'text,label\n"a\rb",x\nc,d\n', [("a\rb", "x"), ("c", "d")]),
        ("surrogate_pair.jsonl", '{"text": "\\ud83d\\ude00", "label": "x"}', [("😀", "x")]),
    ],
)
def test_what_other_tools_write_is_read(
    tmp_path: Path, name: str, content: str | bytes, rows: list[tuple[str, str]]
) -> None:
    assert read(write(tmp_path, name, content)) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,b\na,b,c\n", "a.csv, line 3: 3 cells, more cells than the header has (2). Quote"),
        ("a.csv", "text;label\na;b;c\n", "(2). Quote texts that contain semicolons, without a space"),
        ("a.csv", 'text,label\n"a\nb",x\na\n', "a.csv, line 4: 1 cell, fewer cells than the header"),
        ("a.csv", 'text,label\na,b\n"She said \\"hi\\" loud",pos\n', 'line 3: a backslash before a quote (\\");'),
        ("a.csv", 'text,label\na,b\n"a,b\nc,d\n', "a.csv, line 3: a quote opens a cell and nothing closes it."),
        ("a.csv", 'text,label\n"a" b,c\n', "a.csv, line 2: text follows the closing quote of a cell."),
        ("a.tsv", 'text\tlabel\n"a" b\tc\n', "a.tsv, line 2: text follows the closing quote of a cell."),
        ("a.csv", "Text,label\na,b\n", "its columns are 'Text', 'label'. Did you mean 'Text'? Fix"),
        ("a.csv", "great film,pos\nbad,neg\n", "has no column 'text'; its columns are 'great film', 'pos'."),
        ("a.csv", "text|label\na|b\n", "'text|label'; expected cells separated by commas, semicolons, tabs."),
        ("a.tsv", "text,label\na,b\n", "has the single column 'text,label'; expected cells separated by tabs."),
        ("a.csv", "text,label,text\na,b,c\n", "a.csv has two columns 'text'; expected each used column once."),
        ("a.csv", "", "a.csv is empty; expected at least one row."),
        ("a.csv", "\ufeff\r\n\n", "a.csv is empty"),
        ("a.csv", "text,label\n", "a.csv has no rows; expected at least one."),
        ("a.csv", '"text,label\na,b\n', "a.csv, line 1: a quote opens a cell and nothing closes it."),
        ("a.csv", '"text" "label"\n"a" "b"\n', "a.csv, line 1: text follows the closing quote of a cell."),
        ("a.csv", "text,label\na\rb,c\n", "a.csv, line 2: a carriage return in a cell that is not quoted. Quote"),
        ("a.csv", "sep=;\ntext;label\na;b\n", "a.csv, line 1: 'sep='; expected the names of the columns. Remove"),
        ("a.csv", "text,label\na,b\n".encode("utf-16-le"), "a.csv is text in UTF-16, or binary; expected text"),
        ("a.csv", b"PK\x03\x04...", "a.csv is a ZIP file or a workbook; expected text. Save the sheet as CSV"),
        ("a.csv", gzip.compress(b"text,label\na,b\n", mtime=0), "a.csv is compressed with gzip; expected text. Add"),
        ("a.csv", b"PAR1...", "a.csv is a Parquet file; expected text. Rename it to .parquet."),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid", "a.csv is a pointer of Git LFS;"),
        ("a.tsv", 'text\tlabel\r"Good\tpos\rBad"\tneg\r', "a.tsv, line 2: a quote opens a cell with a tab and a line"),
        ("a.tsv", 'text\tlabel\n"Good\tpos\nBad"\tneg\n', "a.tsv, line 2: a quote opens a cell with a tab and a line"),
        ("a.tsv", 'label\ttext\npos\t"Good\nneg\tBad"\n', "a.tsv, line 2: a quote opens a cell with a tab and a line"),
        ("a.csv", b"text,label\nok,x\ncaf\xe9,x\n", "a.csv, line 3: the row's 'text' has the byte 0xe9"),
        ("a.csv", "text,label\na,b\n".encode("utf-16"), "a.csv is text in UTF-16; expected UTF-8. Save"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "a.jsonl is text in UTF-16; expected UTF-8."),
        ("a.jsonl", b'{"text": "caf\xe9", "label": "x"}\n', "'text' has the byte 0xe9 after 'caf', which is not"),
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.jsonl", '\n{"text": "a"}', "line 2: the row has no 'label'; its columns are 'text'. Fill it"),
        ("a.jsonl", '{"text": null, "label": "x"}', "is null; expected a text. Fill it, or set the task's"),
        ("a.jsonl", '{"text": "a", "label": "b", "text": "c"}', "line 1: duplicate key 'text'; expected each used"),
        ("a.jsonl", '[{"text": "a", "label": "b"}]', "a.jsonl, line 1: not a JSON object: "),
        ("a.jsonl", '{\n"text": "a"}', "a.jsonl, line 1: invalid JSON ("),
        ("a.jsonl", "{'text': 'a'}", "a.jsonl, line 1: invalid JSON ("),
        ("a.jsonl", '{"text": NaN, "label": "x"}', "line 1: 'text' is NaN; expected a text. Fill it, or set"),
        ("a.jsonl", '{"text": 9007199254740993, "label": "x"}', "line 1: the row's 'text' is an integer beyond"),
        ("a.jsonl", '{"text": ["a"], "label": "x"}', "a.jsonl, line 1: the row's 'text' is a list, expected a string"),
        ("a.jsonl", '{"text": "\\ud83d", "label": "x"}', "has an invalid character, half of a surrogate"),
        ("a.parquet", "no parquet", "a.parquet is not a Parquet file, or is incomplete. Copy it again"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_exactly_is_refused_with_its_cause(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    assert message in error_of(write(tmp_path, name, content))


def test_a_compressed_file_that_is_cut_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv.gz", "text,label\n" + "".join(f"{n * 7919 % 10007},b\n" for n in range(20_000)))
    path.write_bytes(path.read_bytes()[:-2000])
    assert re.search(r"a\.csv\.gz is damaged \(.+\)\. Copy it again\.", error_of(path))
    path.write_text("text,label\n")
    assert "a.csv.gz is not compressed with gzip. Remove .gz from its name" in error_of(path)


def test_the_operating_system_s_errors_are_not_blamed_on_the_file(tmp_path: Path) -> None:
    assert f"cannot read {tmp_path}/a.csv (No such file or directory)" in error_of(tmp_path / "a.csv")
    (tmp_path / "b.parquet").mkdir()
    assert f"cannot read {tmp_path}/b.parquet (Is a directory)" in error_of(tmp_path / "b.parquet")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    assert "a.csv is a pipe or a device; expected a regular file." in error_of(tmp_path / "a.csv")


def test_a_single_column_of_another_name_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "My Text\na\n")
    assert "has no column 'my text'; its columns are 'My Text'. Did you mean 'My Text'?" in error_of(path, "my text")


def test_a_blank_line_in_a_single_column_is_refused_and_at_the_end_it_is_not(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.csv", 'text\na\n""\nb\n\n\n'), "text") == [("a",), ("",), ("b",)]
    assert "b.csv, line 3: a blank line; expected a cell." in error_of(
        write(tmp_path, "b.csv", "text\na\n\nb\n"), "text"
    )


@pytest.mark.parametrize("bad", ["c\n", '"c" d,e\n', '"c\n', "\udce9,x\n"])
@pytest.mark.parametrize("count", [1, 499, 500, 1234])
def test_rows_before_an_error_are_read_first(tmp_path: Path, bad: str, count: int) -> None:
    path = tmp_path / "a.csv"
    lines = ["text,label", *('"a\r\nb\n",b' if n % 3 else "c,d" for n in range(count)), bad]
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape", newline="")
    first_lines, line = [], 2
    for n in range(count):
        first_lines.append(line)
        line += 3 if n % 3 else 1
    seen = []
    with pytest.raises(HyperFormerError, match=f"a.csv, line {line}: "):
        seen.extend(number for number, _ in RowFile(path, ["text"]))
    assert seen == first_lines


def test_missing_values_are_empty_or_none_if_the_task_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": null, "label": "x"}\n{"label": "y"}\n{"text": "a", "label": "z"}\n')
    assert read(path, missing="empty") == [("", "x"), ("", "y"), ("a", "z")]
    assert read(path, missing="drop") == [(None, "x"), (None, "y"), ("a", "z")]
    with pytest.raises(HyperFormerError, match=r"its columns are 'text', 'label'\. Did you mean 'text'\?"):
        read(path, "texts", "label", missing="empty")


TABLE = pa.table(
    {
        "string": ["a", "2024-01-01"],
        "large": pa.array(["b", "c"], pa.large_string()),
        "category": pa.array(["b", "c"]).dictionary_encode(),
        "integer": pa.array([7, -1], pa.int8()),
        "float": [7.0, 0.5],
        "single": pa.array([0.5, 0.1], pa.float32()),
        "boolean": [True, False],
        "a.b": ["dot", "dots"],
        "a": [{"b": 1}, {"b": 2}],
        "date": [datetime.date(2024, 1, 1)] * 2,
        "time": pa.array([1, 2], pa.timestamp("ns")),
        "decimal": [decimal.Decimal("1.5")] * 2,
        "bytes": [b"x", b"y"],
        "list": [["x"], []],
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        "large integer": [1 << 53, 1],
        "half": pa.array(np.array([0.1, 1.0], np.float16)),
        "null": pa.nulls(2),
    }
)


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet_is_read_value_by_value_and_only_in_the_columns_that_are_used(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(TABLE, path)
    path = write(tmp_path, name, path.read_bytes())
    columns = ["string", "large", "category", "integer", "float", "single", "boolean", "a.b"]
    assert read(path, *columns) == [
        ("a", "b", "b", "7", "7", "0.5", "true", "dot"),
        ("2024-01-01", "c", "c", "-1", "0.5", "0.1", "false", "dots"),
    ]
    assert read(path, "null", "string", missing="empty") == [("", "a"), ("", "2024-01-01")]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "date",
            "the column 'date' has the type date32[day]; expected strings, numbers of 32 or 64 bits, or booleans",
        ),
        ("time", "has the type timestamp[ns]"),
        ("decimal", "has the type decimal128(2, 1)"),
        ("bytes", "has the type binary"),
        ("list", "has the type list<"),
        ("map", "has the type map<"),
        ("a", "has the type struct<"),
        ("large integer", "row 1: the row's 'large integer' is an integer beyond"),
        ("half", "'half' has the type halffloat; expected strings, numbers of 32 or 64 bits, or booleans"),
        ("null", "row 1: 'null' is null; expected a text."),
        ("strings", "has no column 'strings'; its columns are 'string', 'large', "),
    ],
)
def test_a_parquet_column_without_exact_texts_is_refused(tmp_path: Path, column: str, message: str) -> None:
    parquet.write_table(TABLE, tmp_path / "a.parquet")
    assert message in error_of(tmp_path / "a.parquet", column)


def test_bytes_in_parquet_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")])
    parquet.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    assert "a.parquet, after row 0: text that is not UTF-8; expected" in error_of(tmp_path / "a.parquet", "text")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_the_first_rows_are_read_and_a_column_that_they_do_not_have_is_refused(tmp_path: Path, name: str) -> None:
    content = '{"text": "a"}\n{"text": "b"}\nnot JSON\n' if name == "a.jsonl" else "text\na\nb\nc,d\n"
    path = write(tmp_path, name, content)
    assert [row for _, row in RowFile(path, ["text"], limit=2)] == [("a",), ("b",)]
    with pytest.raises(HyperFormerError, match=r"has no column 'label'|the single column 'text'"):
        list(RowFile(path, ["text", "label"], "empty", limit=2))


def test_parquet_without_pyarrow_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(TABLE, tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "requires pyarrow, which is not installed. Install pyarrow, or convert" in error_of(
        tmp_path / "a.parquet", "a"
    )


FRAME = pd.DataFrame({"text": ['a "b", c\n', "naïve", "x\\y", ""], "label": [0, 1, 2, 3], "when": [1, None, 2, 3]})


@pytest.mark.parametrize(
    "save",
    [
        lambda path: FRAME.to_csv(path.with_suffix(".csv")),
        lambda path: FRAME.to_csv(path.with_suffix(".csv"), index=False),
        lambda path: FRAME.to_csv(path.with_suffix(".csv"), sep=";", index=False, encoding="utf-8-sig"),
        lambda path: FRAME.to_csv(path.with_suffix(".csv"), quoting=csv.QUOTE_ALL),
        lambda path: FRAME.to_csv(path.with_suffix(".tsv"), sep="\t"),
        lambda path: FRAME.to_csv(path.with_suffix(".csv.gz"), index=False),
        lambda path: FRAME.to_json(path.with_suffix(".jsonl"), orient="records", lines=True),
        lambda path: FRAME.to_json(path.with_suffix(".jsonl.gz"), orient="records", lines=True, force_ascii=False),
        lambda path: FRAME.to_parquet(path.with_suffix(".parquet")),
    ],
)  # fmt: skip
def test_a_data_frame_is_read_as_it_was_saved(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a")
    [path] = tmp_path.iterdir()
    assert read(path) == [(text, str(label)) for text, label in zip(FRAME["text"], FRAME["label"], strict=True)]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t"), max_size=8)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.sampled_from(",;\t"))
def test_csv_that_python_writes_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *rows])
    assert read(path) == rows
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows), encoding="utf-8")
    assert read(path) == rows


# --- the columns of a file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id;text;label\n1;a,b;x\n"),
        ("a.csv", '\ufeffid,"text",label,\n1,b,x,\n'),
        ("a.tsv", "id\ttext\tlabel\n1\tb\tx\n"),
        ("a.jsonl", '{"id": 1, "text": "b"}\n\n{"text": null, "label": true, "list": [1]}\n'),
    ],
)
def test_the_columns_of_a_file_are_listed(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    assert RowFile(tmp_path / name, []).list_columns() == ["id", "text", "label"]


def test_columns_of_parquet_whose_values_have_no_text_are_left_out(tmp_path):
    columns = {"id": [1], "text": ["a"], "when": [datetime.date(2020, 1, 1)], "label": [True], "list": [[1]]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert RowFile(tmp_path / "a.parquet", []).list_columns() == ["id", "text", "label"]
    (tmp_path / "b.parquet").write_text("not parquet")
    with pytest.raises(HyperFormerError, match=r"b\.parquet is not a Parquet file"):
        RowFile(tmp_path / "b.parquet", []).list_columns()
