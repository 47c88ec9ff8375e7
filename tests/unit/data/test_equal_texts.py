"""The text that training reads of a row equals the text that each way of serving reads of the same row."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pyarrow import parquet

from hyperformer.cli.arguments import read_rows
from hyperformer.core import text
from hyperformer.core.types import Source
from hyperformer.core.values import MAX_INTEGER, to_text
from hyperformer.data.sources import read_split
from hyperformer.runtime import Bundle
from hyperformer.serving.server.messages import InferRequest
from hyperformer.serving.server.requests import extract_rows
from hyperformer.serving.string_graph import encoding
from hyperformer.serving.string_graph.comparison import open_session
from hyperformer.serving.string_graph.graph import name_inputs
from hyperformer.serving.string_graph.nodes import EXTENSIONS, Nodes
from hyperformer.settings import DataSettings, Tasks
from hyperformer.tasks import make_tasks


def is_in_any_file(value: str) -> bool:
    """Return whether every format can hold a text; TSV refuses tabs beside line breaks, and NULs look like UTF-16."""
    return "\0" not in value and not ("\t" in value and set("\r\n") & set(value))


TEMPLATES: list[Source] = ["{a} {b}", "{{{b}}} of $5: {a}\n{a}", ("{a}", "second: {b}")]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(is_in_any_file)
integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
floats = st.floats(-MAX_INTEGER, MAX_INTEGER, allow_nan=False)
json_values = st.one_of(texts, integers, floats, st.booleans())
TYPES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): texts,
    pa.large_string(): texts,
    pa.dictionary(pa.int32(), pa.string()): texts,
    pa.int8(): st.integers(-128, 127),
    pa.int64(): integers,
    pa.uint64(): st.integers(0, MAX_INTEGER),
    pa.float32(): st.floats(-1e6, 1e6, width=32),
    pa.float64(): floats,
    pa.bool_(): st.booleans(),
}
fast = settings(
    max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows").mkdir()
    return tmp_path / "rows"


def read_training_texts(folder: Path, template: Source, missing: str | None = None) -> list[Source]:
    """Return the source of each row of `train`, as preprocessing stores it and training renders it."""
    settings = {
        "kind": "generation",
        "text": template,
        "label_column": "label",
        "metrics": ["exact_match"],
        "missing": missing,
    }
    [task] = make_tasks(Tasks.model_validate({"t": settings})).values()
    rows, _ = read_split("t", task, DataSettings(source=str(folder)), Path(), "train")
    return [task.make_example(row).source for row in rows]


def make_bundle(template: Source, missing: str | None = None) -> Bundle:
    """Return a bundle that has nothing but its template."""
    bundle = Bundle.__new__(Bundle)
    bundle.manifest = cast(Any, SimpleNamespace(text=template, missing=missing))
    return bundle


def read_served_texts(arguments: list[str], bundle: Bundle) -> list[Source]:
    """Return the source of each row that the command line and the server read."""
    rows = [row for _, row in read_rows(arguments, bundle)]
    sources = [bundle.source(row) for row in rows]
    columns = text.find_columns(bundle.manifest.text)
    request = InferRequest.model_validate(
        {
            "inputs": [
                {
                    "name": column,
                    "shape": [len(rows)],
                    "datatype": "BYTES",
                    "data": [to_text(value, column) if (value := row.get(column)) is not None else "" for row in rows],
                }
                for column in columns
            ]
        }
    )
    assert [bundle.source(row) for row in extract_rows(request, b"", columns, len(rows))] == sources
    return sources


@cache
def open_renderer(template: Source) -> onnxruntime.InferenceSession:
    """Open a graph that renders a template, with the nodes of string graphs."""
    nodes, inputs = Nodes(), name_inputs(text.find_columns(template))
    templates = [template] if isinstance(template, str) else template
    outputs = [encoding._render(nodes, part, inputs) for part in templates]
    values = [helper.make_tensor_value_info(name, TensorProto.STRING, None) for name in outputs]
    strings = [helper.make_tensor_value_info(name, TensorProto.STRING, ["batch"]) for name in inputs.values()]
    graph = helper.make_graph(nodes.nodes, "texts", strings, values, nodes.constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(EXTENSIONS, 1)]
    return open_session(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def read_graph_texts(template: Source, rows: list[dict[str, str]]) -> list[Source]:
    """Return the source of each row that a string graph renders."""
    inputs = {
        name: np.array([row[column] for row in rows], dtype=object)
        for column, name in name_inputs(text.find_columns(template)).items()
    }
    rendered = zip(*open_renderer(template).run(None, inputs), strict=True)
    return [source if len(source) > 1 else source[0] for source in rendered]


@fast
@given(st.data(), st.sampled_from(TEMPLATES))
def test_of_a_string_graph(data: st.DataObject, template: Source) -> None:
    rows = data.draw(st.lists(st.fixed_dictionaries({"a": json_values, "b": json_values}), min_size=1, max_size=4))
    served = [{column: to_text(value, column) for column, value in row.items()} for row in rows]
    assert read_graph_texts(template, served) == [text.render(template, row) for row in rows]


@fast
@given(st.data(), st.sampled_from(TEMPLATES), st.sampled_from(["csv", "tsv"]))
def test_of_a_table(folder: Path, data: st.DataObject, template: Source, suffix: str) -> None:
    rows = data.draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
    file = folder / f"train.{suffix}"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t" if suffix == "tsv" else ",").writerows(
            [("a", "label", "b"), *((a, "x", b) for a, b in rows)]
        )
    expected = [text.render(template, {"a": a, "b": b}) for a, b in rows]
    assert read_training_texts(folder, template) == expected
    assert read_served_texts([str(file)], make_bundle(template)) == expected
    file.unlink()


@fast
@given(st.data(), st.sampled_from(TEMPLATES), st.sampled_from([None, "empty"]))
def test_of_jsonl(folder: Path, data: st.DataObject, template: Source, missing: str | None) -> None:
    values = st.none() | json_values if missing else json_values
    rows = data.draw(st.lists(st.fixed_dictionaries({"a": values, "b": values}), min_size=1, max_size=4))
    lines = [json.dumps({**row, "label": "x"}, ensure_ascii=data.draw(st.booleans())) for row in rows]
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="")
    expected, bundle = read_training_texts(folder, template, missing), make_bundle(template, missing)
    assert read_served_texts([str(folder / "train.jsonl")], bundle) == expected
    assert read_served_texts(lines, bundle) == expected
    assert [bundle.source(row) for row in rows] == expected


@fast
@given(st.data(), st.sampled_from(TEMPLATES), st.sampled_from(list(TYPES)), st.sampled_from(list(TYPES)))
def test_of_parquet(folder: Path, data: st.DataObject, template: Source, a: pa.DataType, b: pa.DataType) -> None:
    rows = data.draw(st.lists(st.tuples(TYPES[a], TYPES[b]), min_size=1, max_size=4))
    columns = {"a": pa.array([row[0] for row in rows], a), "b": pa.array([row[1] for row in rows], b)}
    parquet.write_table(pa.table({**columns, "label": ["x"] * len(rows)}), folder / "train.parquet")
    expected, bundle = read_training_texts(folder, template), make_bundle(template)
    assert read_served_texts([str(folder / "train.parquet")], bundle) == expected
    if pa.float32() in (a, b):  # whose numbers in Python have more digits
        return
    table = parquet.read_table(folder / "train.parquet")
    assert [bundle.source(row) for row in table.to_pylist()] == expected
    assert read_served_texts([json.dumps(row) for row in table.to_pylist()], bundle) == expected


def test_rows_with_missing_values_are_dropped_and_counted(folder: Path) -> None:
    (folder / "train.jsonl").write_text('{"a": "1", "b": null, "label": "x"}\n{"a": 2.0, "b": "2", "label": "x"}\n')
    assert read_training_texts(folder, "{a} {b}", "drop") == ["2 2"]
