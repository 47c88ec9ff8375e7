"""The sections on what was made of a run: what its graphs cost, how they answer, and what all came from."""

from __future__ import annotations

import json
from pathlib import Path

from hyperformer import manifest
from hyperformer.report.markup import Safe, Table, answer, details, escaped, paragraph, table
from hyperformer.report.run import Run
from hyperformer.report.scores import parameters

NONE = "No task of this run was exported."
KINDS = {"graph": manifest.GRAPH, "int8": manifest.INT8, "generation": manifest.GENERATION}
"""What is told apart of a bundle's files, by how their names begin."""


def cost(run: Run) -> str:
    """What it costs: parameters, and megabytes of each bundle."""
    percent = run.parameters["trained_percent_per_task"]
    told = (
        f"It trains {percent:.1f}% of the backbone's parameters a task, and all tasks together need "
        f"{run.parameters['total_ratio']:.2f} backbones"
    )
    shown = table(parameters(run), "Parameters")
    if not run.manifests:
        return answer(f"{told}.") + shown + paragraph(NONE)
    rows = []
    for name, found in run.manifests.items():
        sizes = {file: (run.bundles / name / file).stat().st_size / 1e6 for file in found.files}
        parts = [sum(size for file, size in sizes.items() if file.startswith(start)) for start in KINDS.values()]
        total = sum(sizes.values())
        rows.append(
            [name, *(f"{size:.1f}" if size else "none" for size in parts), f"{total - sum(parts):.1f}", f"{total:.1f}"]
        )
    largest = max(float(row[-1]) for row in rows)
    return (
        answer(f"{told}. The largest bundle has {largest:.1f} MB.")
        + shown
        + table(Table(["task", *KINDS, "tokenizer and card", "all"], rows), "Size of each bundle, MB (10⁶ bytes)")
        + paragraph(
            Safe(
                f"Times are a machine's: {_code('kedro run --pipelines times')} measures them, into "
                f"{_code('times/times.html')} beside this page."
            )
        )
    )


def parity(run: Run) -> str:
    """Whether the graphs answer as the model did, in float32 and in int8."""
    if not run.manifests:
        return answer(NONE)
    rows = []
    for name, found in run.manifests.items():
        told, int8 = found.parity, found.int8
        beyond = f"{told['beyond']:.0f}" if "beyond" in told else "not told"
        less = (
            [
                f"{int8['float32']:.2f}",
                f"{int8['metric']:.2f}",
                f"{int8['metric'] - int8['float32']:+.2f}",
                "yes" if int8["published"] else "no",
            ]
            if int8
            else ["none"] * 4
        )
        rows.append(
            [name, f"{told['rows']:.0f}", f"{told['ties']:.0f}", beyond, f"{told['largest_difference']:.1e}", *less]
        )
    count = sum(int(found.parity["rows"]) for found in run.manifests.values())
    ties = sum(int(found.parity["ties"]) for found in run.manifests.values())
    head = [
        "task",
        "rows",
        "ties",
        "beyond tolerance",
        "largest difference",
        "float32",
        "int8",
        "change",
        "int8 published",
    ]
    return (
        answer(
            f"Of {count:,} validation rows {count - ties:,} have the same answer in graph and model; {ties:,} are ties."
        )
        + paragraph(
            f"A graph is published only if its scores differ by at most {run.tolerance:g} on nearly all rows, and its "
            "answers only where two are as good (ties). In int8 it is published where its metric is near enough."
        )
        + table(Table(head, rows), "Graph beside model, on the validation split")
    )


def lineage(run: Run) -> str:
    """What it comes from, by hashes; nothing that depends on when, where or by which commit."""
    made = {name: found.made_from for name, found in run.manifests.items()}
    keys = list(dict.fromkeys(key for found in made.values() for key in found))
    same = {
        key: values.pop() for key in keys if len(values := {found.get(key, "none") for found in made.values()}) == 1
    }
    backbone = run.configuration["backbone"]
    path = Path(backbone["path"])
    said = {
        "method": run.method,
        "seed": str(run.seed),
        "backbone": path.name if path.is_absolute() else backbone["path"],  # where it lies on a host is not told
        "revision": backbone["revision"] or "not pinned",
        "sha256 of the backbone": Safe(_code(backbone["sha256"])),
        **{f"sha256 of {key}": Safe(_code(value)) for key, value in same.items()},
    }
    listed = "".join(f"<dt>{escaped(key)}</dt><dd>{escaped(text)}</dd>\n" for key, text in said.items())
    own = [key for key in keys if key not in same]
    rows = [
        [
            name,
            *(Safe(_code(made[name].get(key, "none"))) for key in own),
            Safe(_code(found.files.get(manifest.GRAPH, "none"))),
        ]
        for name, found in run.manifests.items()
    ]
    settings = json.dumps(run.configuration["methods"], indent=2, ensure_ascii=False)
    hashes = table(Table(["task", *own, "graph"], rows), "sha256 by task") if rows else paragraph(NONE)
    return (
        answer(f"It is {run.method}, trained with seed {run.seed}.")
        + f"<dl>\n{listed}</dl>\n"
        + hashes
        + details("The method's settings", f"<pre>{escaped(settings)}</pre>\n")
    )


def _code(text: str) -> str:
    return f"<code>{escaped(text)}</code>"
