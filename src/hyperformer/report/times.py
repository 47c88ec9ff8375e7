"""Durations of a run's steps and speed of its graphs, measured on one machine; no other report depends on them."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperformer.core.files import write_text
from hyperformer.core.manifest import GRAPH, INT8
from hyperformer.core.progress import read_durations, track
from hyperformer.data.storage import read_first_rows
from hyperformer.report.html import render_document
from hyperformer.runtime import load

LATENCY = "latency.json"
PAGE = "times.html"
ROWS = 256
"""Maximum number of validation rows of a task that are predicted."""
BATCH = 32
"""Number of rows in a batch, for the throughput."""
MIN_REPEATS = 8
"""Minimum number of measurements of single rows, and of batches."""
SECTIONS = {
    "How fast are the exported graphs?": "latency.html.jinja",
    "How long did each step take?": "durations.html.jinja",
}
"""Template of the section that answers each question."""


def measure(bundles: Path, rows: Path, folder: Path, seconds: float = 2.0) -> None:
    """Time the graphs of all bundles on validation rows, and write the results as JSON and as an HTML page.

    Args:
        bundles: The folder of bundles; generative tasks are skipped.
        rows: The folder of each task's rows.
        folder: The folder to write `latency.json` and `times.html` to, which also has the durations of the run's steps.
        seconds: The minimum time for which each graph predicts single rows, and then batches, in seconds.
    """
    results: dict[str, Any] = {"machine": _describe_machine(), "graphs": []}
    graphs = [path for kind in (GRAPH, INT8) for path in sorted(bundles.glob(f"*/{kind}"))]
    for graph in track(graphs, "timing graphs", len(graphs)):
        task = graph.parent.name
        sample = list(read_first_rows(rows, task, "validation", ROWS))
        results["graphs"].append({"task": task, "int8": graph.name == INT8, **_measure_latency(graph, sample, seconds)})
    contents = {LATENCY: json.dumps(results, indent=1) + "\n", PAGE: render_page(read_durations(folder), results)}
    for name, text in contents.items():
        write_text(folder / name, text)


def _describe_machine() -> dict[str, Any]:
    """Return the CPU's architecture, the number of cores (None if unknown) and the version of onnxruntime."""
    import onnxruntime

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": platform.machine(), "cores": cores, "onnxruntime": onnxruntime.__version__}


def _measure_latency(graph: Path, rows: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, float]:
    """Measure the milliseconds to load a graph and to predict a single row, and the rows per second in batches."""
    start = time.perf_counter()
    bundle = load(graph.parent, precision="int8" if graph.name == INT8 else "float32", allow_unpublished=True)
    load_time = time.perf_counter() - start
    bundle(rows[0])  # type: ignore[operator]

    def time_batches(batches: Sequence[Sequence[Mapping[str, Any]]]) -> list[float]:
        durations: list[float] = []
        while len(durations) < MIN_REPEATS or sum(durations) < seconds:
            batch = batches[len(durations) % len(batches)]
            start = time.perf_counter()
            bundle.answer(batch, BATCH)  # type: ignore[union-attr]
            durations.append(time.perf_counter() - start)
        return durations

    single = time_batches([[row] for row in rows])
    batches = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    batched = time_batches(batches)
    answered = sum(len(batches[turn % len(batches)]) for turn in range(len(batched)))
    return {
        "open_ms": round(1e3 * load_time, 1),
        "median_ms": round(1e3 * float(np.median(single)), 3),
        "p95_ms": round(1e3 * float(np.percentile(single, 95)), 3),
        "rows_per_second": round(answered / sum(batched), 1),
    }


def render_page(steps: Mapping[str, float], results: Mapping[str, Any]) -> str:
    """Render the measurements as an HTML page in the style of the report.

    Args:
        steps: Duration of the step that saved each artifact, in seconds, by artifact.
        results: The content of `latency.json`.
    """
    graphs = sorted(results["graphs"], key=lambda graph: (graph["task"], graph["int8"]))
    return render_document(
        "Times of a run",
        "Measured on one machine: the same commit and seed will not give exactly the same times again.",
        SECTIONS,
        steps=steps,
        longest=max(steps, key=steps.__getitem__, default=None),
        machine=results["machine"],
        graphs=graphs,
        slowest=max(results["graphs"], key=lambda graph: graph["median_ms"], default=None),
        batch=BATCH,
    )
