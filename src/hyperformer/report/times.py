"""How long a run's steps took, and how fast its graphs answer: a machine's figures, apart from what a commit gives."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperformer.data import first_rows
from hyperformer.manifest import GRAPH, INT8
from hyperformer.progress import noted, watched
from hyperformer.report.document import whole
from hyperformer.report.markup import Strong, Table, answer, paragraph, table
from hyperformer.runtime import load

LATENCY, PAGE = "latency.json", "times.html"
ROWS, BATCH, LEAST = 256, 32, 8
"""Validation rows of a task that are asked at most, of a batch, and asked alone at least."""


def measure(bundles: Path, rows: Path, place: Path, seconds: float = 2.0) -> None:
    """Times every bundle's graphs on validation rows, and writes the figures and their page.

    Args:
        bundles: the folder of bundles; those of generation tasks are left out.
        rows: the folder of checked rows.
        place: a folder, in which steps may be noted; `latency.json` and `times.html` are written there.
        seconds: about how long each graph is asked, alone and in batches.
    """
    found: dict[str, Any] = {"machine": _machine(), "graphs": []}
    graphs = [path for kind in (GRAPH, INT8) for path in sorted(bundles.glob(f"*/{kind}"))]
    for graph in watched(graphs, "timing graphs", len(graphs)):
        task = graph.parent.name
        asked = list(first_rows(rows, task, "validation", ROWS))
        found["graphs"].append({"task": task, "int8": graph.name == INT8, **_latency(graph, asked, seconds)})
    for name, text in ((LATENCY, json.dumps(found, indent=1) + "\n"), (PAGE, page(noted(place), found))):
        beside = place / f".{name}.new"
        beside.write_text(text, encoding="utf-8")
        beside.replace(place / name)


def _machine() -> dict[str, Any]:
    """What the figures depend on; None for what the system does not tell."""
    import onnxruntime

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": platform.machine(), "cores": cores, "onnxruntime": onnxruntime.__version__}


def _latency(graph: Path, rows: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, float]:
    """Milliseconds to open it and to answer a row alone, and rows a second in batches, whose order is the rows'."""
    began = time.perf_counter()
    bundle = load(graph.parent, precision="int8" if graph.name == INT8 else "float32")
    opened = time.perf_counter() - began
    bundle(rows[0])  # type: ignore[operator]

    def spent(batches: Sequence[Sequence[Mapping[str, Any]]]) -> list[float]:
        took: list[float] = []
        while len(took) < LEAST or sum(took) < seconds:
            batch = batches[len(took) % len(batches)]
            began = time.perf_counter()
            bundle.answer(batch, BATCH)  # type: ignore[union-attr]
            took.append(time.perf_counter() - began)
        return took

    alone = spent([[row] for row in rows])
    batches = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    together = spent(batches)
    answered = sum(len(batches[turn % len(batches)]) for turn in range(len(together)))
    return {
        "open_ms": round(1e3 * opened, 1),
        "median_ms": round(1e3 * float(np.median(alone)), 3),
        "p95_ms": round(1e3 * float(np.percentile(alone, 95)), 3),
        "rows_per_second": round(answered / sum(together), 1),
    }


def page(steps: Mapping[str, float], found: Mapping[str, Any]) -> str:
    """The figures as a page in the report's look."""
    machine, graphs = found["machine"], found["graphs"]
    if graphs:
        slow = max(graphs, key=lambda one: one["median_ms"])
        rows = [
            [
                one["task"],
                "int8" if one["int8"] else "float32",
                f"{one['open_ms']:.0f}",
                Strong(f"{one['median_ms']:.2f}"),
                f"{one['p95_ms']:.2f}",
                f"{one['rows_per_second']:,.0f}",
            ]
            for one in sorted(graphs, key=lambda one: (one["task"], one["int8"]))
        ]
        head = ["task", "graph", "to open, ms", "a row alone, ms", "95th percentile, ms", "rows a second"]
        answers = (
            answer(f"A row alone takes {slow['median_ms']:.1f} ms at most, in the median ({slow['task']}).")
            + paragraph(
                f"Validation rows, on {machine['cores']} cores of {machine['processor']} with onnxruntime "
                f"{machine['onnxruntime']} and its own number of threads; the last column in batches of {BATCH}."
            )
            + table(Table(head, rows), "How fast each graph answers")
        )
    else:
        answers = answer("No graph was exported.")
    longest = max(steps, key=steps.__getitem__, default=None)
    listed = [[name, f"{seconds:,.1f}"] for name, seconds in steps.items()]
    return whole(
        "Times of a run",
        "A machine's figures, which the same commit and seed do not give again.",
        {
            "How fast do the graphs answer?": answers,
            "How long did each step take?": (
                answer(f"The longest was {longest}, {steps[longest]:,.0f} s.")
                + table(
                    Table(["artifact", "seconds"], listed), "From the start of its node; the last time each was made"
                )
            )
            if longest
            else answer("No step was timed."),
        },
    )
