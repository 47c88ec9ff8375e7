"""Times of graphs and steps, and the page that shows them."""

from __future__ import annotations

import json

from html_reader import Reader

from hyperformer.core.progress import record_duration
from hyperformer.report.times import measure


def test_times_of_every_graph_are_shown_with_those_of_the_steps(bundles, toy_rows, tmp_path):
    record_duration(tmp_path, "rows", 1.25)
    record_duration(tmp_path, "checkpoint", 80.0)
    record_duration(tmp_path, "rows", 2.0)  # a later run replaces it
    measure(bundles, toy_rows, tmp_path, seconds=0.0)
    results = json.loads((tmp_path / "latency.json").read_text())["graphs"]
    graphs = [(path.parent.name, kind == "model.int8.onnx") for kind in ("model.onnx", "model.int8.onnx")
              for path in sorted(bundles.glob(f"*/{kind}"))]  # fmt: skip
    assert [(graph["task"], graph["int8"]) for graph in results] == graphs
    assert all(0 < graph["median_ms"] <= graph["p95_ms"] and graph["rows_per_second"] > 0 for graph in results)
    page = Reader((tmp_path / "times.html").read_text())
    assert [text for tag, text in page.headings if tag == "h2"] == [
        "How fast are the exported graphs?", "How long did each step take?",
    ]  # fmt: skip
    assert "The longest step was checkpoint, 80 s." in page.text
    assert f"{max(graph['median_ms'] for graph in results):.1f} ms at most" in page.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latency.json", "steps.json", "times.html"]


def test_a_page_without_times_says_so(toy_rows, tmp_path):
    measure(tmp_path, toy_rows, tmp_path)
    text = Reader((tmp_path / "times.html").read_text()).text
    assert "No graph was exported." in text
    assert "No step was timed." in text
