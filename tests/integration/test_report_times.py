"""Times of graphs and steps, and their page."""

from __future__ import annotations

import json

from html_reader import Reader

from hyperformer.progress import note
from hyperformer.report.times import measure


def test_times_are_measured_of_every_graph_and_shown_beside_the_steps(bundles, toy_rows, tmp_path):
    note(tmp_path, "rows", 1.25)
    note(tmp_path, "checkpoint", 80.0)
    note(tmp_path, "rows", 2.0)  # made again
    measure(bundles, toy_rows, tmp_path, seconds=0.0)
    found = json.loads((tmp_path / "latency.json").read_text())["graphs"]
    graphs = [(path.parent.name, kind == "model.int8.onnx") for kind in ("model.onnx", "model.int8.onnx")
              for path in sorted(bundles.glob(f"*/{kind}"))]  # fmt: skip
    assert [(one["task"], one["int8"]) for one in found] == graphs
    assert all(0 < one["median_ms"] <= one["p95_ms"] and one["rows_per_second"] > 0 for one in found)
    read = Reader((tmp_path / "times.html").read_text())
    assert [words for tag, words in read.headings if tag == "h2"] == [
        "How fast do the graphs answer?", "How long did each step take?",
    ]  # fmt: skip
    assert "The longest was checkpoint, 80 s." in read.words
    assert f"{max(found, key=lambda one: one['median_ms'])['median_ms']:.1f} ms at most" in read.words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latency.json", "steps.json", "times.html"]


def test_times_of_nothing_say_so(toy_rows, tmp_path):
    measure(tmp_path, toy_rows, tmp_path)
    words = Reader((tmp_path / "times.html").read_text()).words
    assert "No graph was exported." in words
    assert "No step was timed." in words
