"""The results of a run as a table, and as a page with its validation curve."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from hyperformer import manifest
from hyperformer.evaluation import standard_error
from hyperformer.tasks import Task

BASELINES = ("majority", "tfidf", "overlap", "frozen")


def tables(
    tasks: Mapping[str, Task],
    metrics: Mapping[str, Any],
    baselines: Mapping[str, Any],
    counts: Mapping[str, Any],
    parameters: Mapping[str, float],
    bundles: Path,
) -> str:
    """Test metrics beside baselines and what export found, in percent, and the parameters, in Markdown."""
    described = {name: manifest.read(bundles / name) for name in tasks if (bundles / name).is_dir()}
    method = next(iter({one.method for one in described.values()}), "model")
    lines = [
        f"| task | metrics | test rows | {method} | ± s.e. | majority | TF-IDF | + overlap | frozen | parity (ties) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    means: dict[str, list[float]] = {name: [] for name in ("model", *BASELINES)}
    for name, task in tasks.items():
        result, rows = metrics["test"][name], counts[name]["test"]["rows"]
        found = {kind: baselines[name].get(kind, baselines[name]["tfidf"])["mean"] for kind in BASELINES}
        for kind, value in {"model": result["mean"], **found}.items():
            means[kind].append(value)
        parity = described[name].parity if name in described else None
        cells = [
            name,
            ", ".join(task.settings.metrics),
            str(rows),
            f"**{result['mean']:.1f}**{_warnings(result)}",
            f"{standard_error(task, result, rows):.1f}",
            *(f"{found[kind]:.1f}" for kind in BASELINES),
            f"{parity['rows']:.0f} ({parity['ties']:.0f})" if parity else "not exported",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    mean = {kind: sum(values) / len(values) for kind, values in means.items()}
    last = [f"**{mean['model']:.1f}**", "", *(f"{mean[kind]:.1f}" for kind in BASELINES), ""]
    lines.append(f"| mean | | | {' | '.join(last)} |")
    return "\n".join(lines) + "\n\n" + _parameters(method, parameters)


def _warnings(result: Mapping[str, float]) -> str:
    words = ["one answer only"] if result.get("collapsed") else []
    words += [f"{result['outside']:.0f} answers outside"] if result.get("outside") else []
    return f" ({', '.join(words)})" if words else ""


def _parameters(method: str, counts: Mapping[str, float]) -> str:
    cells = [
        method,
        *(f"{counts[kind]:,}" for kind in ("backbone", "added", "trained")),
        f"{counts['total_ratio']:.3f}",
        f"{counts['trained_percent_per_task']:.3f}",
    ]
    return f"""| parameters | backbone | added | trained | all tasks, in backbones | trained a task, % of the backbone |
| --- | --- | --- | --- | --- | --- |
| {" | ".join(cells)} |
"""


def page(results: str, history: Sequence[Mapping[str, float]]) -> str:
    """The tables and the validation curve as one HTML page that needs nothing else."""
    shown = "\n".join(_html(part) for part in results.strip().split("\n\n"))
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>HyperFormer: results</title>
<style>body{{font:16px sans-serif;max-width:70em;margin:2em auto}}td,th{{padding:.3em .8em;text-align:left;
border-bottom:1px solid #ccc}}</style>
<h1>Results</h1>
<p>Test split, percent. A task of several metrics shows their mean; s.e. is one standard error. The other columns are
baselines: the commonest answer, and logistic regression on words and word pairs, on these and how two texts overlap,
and on the frozen backbone's embeddings.</p>
{shown}
<h2>Validation during training</h2>
{_curve(history)}
</html>
"""


def _html(table: str) -> str:
    """A Markdown table in HTML."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell.replace('**', ''))}</td>" for cell in row) + "</tr>\n"
        for row in rows[2:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _curve(history: Sequence[Mapping[str, float]]) -> str:
    with matplotlib.rc_context({"svg.hashsalt": "hyperformer", "backend": "svg"}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        for name in [key for key in history[0] if key != "step"]:
            heavy: dict[str, Any] = {"linewidth": 3, "color": "black"} if name == "mean" else {}
            axes.plot(
                [line["step"] for line in history], [line[name] for line in history], label=name, marker="o", **heavy
            )
        axes.set(xlabel="step", ylabel="metric, percent")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue().partition("?>")[2].partition(">")[2]
