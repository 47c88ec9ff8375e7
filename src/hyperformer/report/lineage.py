"""The report's sections on exported bundles: size, parity with the model, and lineage."""

from __future__ import annotations

import json
from pathlib import Path

from hyperformer.core import manifest
from hyperformer.report.markup import Markup, Table, answer, details, escape, paragraph, table
from hyperformer.report.run import Run
from hyperformer.report.scores import build_parameter_table

NO_EXPORT = "No task of this run was exported."
FILE_KINDS = {"float32 graph": manifest.GRAPH, "int8 graph": manifest.INT8, "generation": manifest.GENERATION}
"""Kinds of files in a bundle, with the prefix of their names."""


def render_size(run: Run) -> str:
    """Render parameter counts, and the size of each bundle in megabytes."""
    summary = (
        f"Trainable parameters per task are {run.parameters['trained_percent_per_task']:.1f}% of the backbone; the "
        f"model for all tasks has {run.parameters['total_ratio']:.2f} times the backbone's parameters"
    )
    parameters = table(build_parameter_table(run), "Parameters")
    if not run.manifests:
        return answer(f"{summary}.") + parameters + paragraph(NO_EXPORT)
    rows = []
    for name, description in run.manifests.items():
        sizes = {file: (run.bundles / name / file).stat().st_size / 1e6 for file in description.files}
        kinds = [sum(size for file, size in sizes.items() if file.startswith(prefix)) for prefix in FILE_KINDS.values()]
        total = sum(sizes.values())
        rows.append(
            [name, *(f"{size:.1f}" if size else "none" for size in kinds), f"{total - sum(kinds):.1f}", f"{total:.1f}"]
        )
    largest = max(float(row[-1]) for row in rows)
    header = ["task", *FILE_KINDS, "tokenizer and model card", "total"]
    return (
        answer(f"{summary}. The largest bundle is {largest:.1f} MB.")
        + parameters
        + table(Table(header, rows), "Size of each bundle, MB (10⁶ bytes)")
        + paragraph(
            Markup(
                f"Latency depends on the machine: {_code('kedro run --pipelines times')} measures it and writes "
                f"{_code('times/times.html')} next to this page."
            )
        )
    )


def render_parity(run: Run) -> str:
    """Render the comparison of float32 graphs with the model, and of int8 graphs with float32 graphs."""
    if not run.manifests:
        return answer(NO_EXPORT)
    rows = []
    for name, description in run.manifests.items():
        parity, int8 = description.parity, description.int8
        beyond = f"{parity['beyond']:.0f}" if "beyond" in parity else "not recorded"
        quantized = (
            [
                f"{int8['float32']:.2f}",
                f"{int8['metric']:.2f}",
                f"{int8['metric'] - int8['float32']:+.2f}",
                "yes" if int8["published"] else "no",
            ]
            if int8
            else ["none"] * 4
        )
        difference = f"{parity['largest_difference']:.1e}"
        rows.append([name, f"{parity['rows']:.0f}", f"{parity['ties']:.0f}", beyond, difference, *quantized])
    count = sum(int(description.parity["rows"]) for description in run.manifests.values())
    ties = sum(int(description.parity["ties"]) for description in run.manifests.values())
    header = [
        "task",
        "rows",
        "ties",
        "rows beyond tolerance",
        "largest score difference",
        "float32 metric",
        "int8 metric",
        "change",
        "int8 exported",
    ]
    return (
        answer(
            f"Graph and model give the same answer on {count - ties:,} of {count:,} validation rows; {ties:,} are ties."
        )
        + paragraph(
            f"A graph is exported only if its scores differ from the model's by at most {run.tolerance:g} on nearly "
            "all rows, and if their labels differ only on ties: rows whose two best scores are nearly equal. The int8 "
            "graph is exported only if its metric is not much lower than the float32 graph's metric."
        )
        + table(Table(header, rows), "Exported graphs compared with the model, on the validation split")
    )


def render_lineage(run: Run) -> str:
    """Render the hashes of the run's inputs (code, data, parameters), without its time, machine and commit."""
    origins = {name: description.made_from for name, description in run.manifests.items()}
    keys = list(dict.fromkeys(key for origin in origins.values() for key in origin))
    shared = {
        key: values.pop()
        for key in keys
        if len(values := {origin.get(key, "none") for origin in origins.values()}) == 1
    }
    backbone = run.configuration["backbone"]
    path = Path(backbone["path"])
    entries = {
        "method": run.method,
        "seed": str(run.seed),
        "backbone": path.name if path.is_absolute() else backbone["path"],  # do not reveal paths of the machine
        "revision": backbone["revision"] or "not pinned",
        "SHA-256 of the backbone": Markup(_code(backbone["sha256"])),
        **{f"SHA-256 of {key}": Markup(_code(value)) for key, value in shared.items()},
    }
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>\n" for key, text in entries.items())
    per_task = [key for key in keys if key not in shared]
    rows = [
        [
            name,
            *(Markup(_code(origins[name].get(key, "none"))) for key in per_task),
            Markup(_code(description.files.get(manifest.GRAPH, "none"))),
        ]
        for name, description in run.manifests.items()
    ]
    settings = json.dumps(run.configuration["methods"], indent=2, ensure_ascii=False)
    hashes = table(Table(["task", *per_task, "graph"], rows), "SHA-256 by task") if rows else paragraph(NO_EXPORT)
    return (
        answer(f"The method is {run.method}, trained with seed {run.seed}.")
        + f"<dl>\n{items}</dl>\n"
        + hashes
        + details("Settings of the method", f"<pre>{escape(settings)}</pre>\n")
    )


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
