"""Tables of test scores and parameter counts, for the page and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyperformer.report.summary import BASELINES, Score, Summary, TaskScore

MODEL, FIRST_BASELINE = 3, 5
"""Indices of columns in the table of scores: the model's score, and the first baseline's score."""


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first entry of each row is the name of the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: Sequence[int] | None = None
    """Index of the column that is set in bold, of each row; None: nothing is bold."""


def render_results(summary: Summary) -> str:
    """Render test metrics, tasks behind their best baseline, notes, and parameter counts as Markdown, in percent."""
    behind = "".join(f"- {sentence}\n" for sentence in list_behind(summary))
    notes = "".join(f"- {note}\n" for note in list_notes(summary))
    blocks = to_markdown(build_score_table(summary)), behind, notes, to_markdown(build_parameter_table(summary))
    return "\n".join(block for block in blocks if block)


def list_behind(summary: Summary) -> list[str]:
    """Return a sentence with both figures for each task that does not beat its best baseline."""
    return [
        f"{score.name}: the model ({score.model:.1f}) does not beat the best baseline, {BASELINES[score.best_baseline]}"
        f" ({score.baselines[score.best_baseline]:.1f})."
        for score in summary.behind
    ]


def list_notes(summary: Summary) -> list[str]:
    """Return a sentence for each note on the model, on a baseline or on the rows that the baselines of a task use."""
    return [f"{score.name}, {subject}: {note}." for score in summary.scores for subject, note in score.notes.items()]


def to_markdown(table: Table) -> str:
    """Render a table as Markdown."""

    def line(entries: Iterable[str]) -> str:
        escaped = (entry.replace("|", "\\|") for entry in entries)
        return f"| {' | '.join(escaped)} |"

    body = [
        [f"**{entry}**" if table.bold and index == table.bold[number] else entry for index, entry in enumerate(row)]
        for number, row in enumerate(table.rows)
    ]
    return "\n".join(map(line, [table.header, ["---"] * len(table.header), *body])) + "\n"


def build_score_table(summary: Summary) -> Table:
    """Build the table of test metrics by task, with baselines and export checks; metrics are in percent.

    The bold entry of a row is the score of the model if it beats every baseline, otherwise that of the best baseline.
    """
    parities = {bundle.name: bundle.parity for bundle in summary.bundles}
    rows = []
    for score in summary.scores:
        parity = parities.get(score.name)
        rows.append(
            [
                score.name,
                ", ".join(score.metrics),
                str(score.rows),
                f"{score.model:.1f}{_format_warnings(score)}",
                f"{score.error:.1f}",
                *_format_baselines(score),
                f"{parity['rows']:.0f} ({parity['ties']:.0f})" if parity else "not exported",
            ]
        )
    rows.append(["mean", "", "", f"{summary.mean.model:.1f}", "", *_format_baselines(summary.mean), ""])
    names = BASELINES.values()
    header = ["task", "metrics", "test rows", summary.method, "± standard error", *names, "export check: rows (ties)"]
    baselines = list(BASELINES)
    bold = [
        FIRST_BASELINE + baselines.index(score.best_baseline) if score.is_behind else MODEL
        for score in (*summary.scores, summary.mean)
    ]
    return Table(header, rows, bold)


def build_parameter_table(summary: Summary) -> Table:
    """Build the table of backbone, added, trainable and total parameters."""
    counts = summary.parameters
    header = [
        "method",
        "backbone parameters",
        "added parameters",
        "trainable parameters",
        "total parameters (× backbone)",  # noqa: RUF001
        "trainable parameters per task (% of backbone)",
    ]
    values = [
        *(f"{counts[kind]:,}" for kind in ("backbone", "added", "trained")),
        f"{counts['total_ratio']:.3f}",
        f"{counts['trained_percent_per_task']:.3f}",
    ]
    return Table(header, [[summary.method, *values]])


def _format_baselines(score: Score) -> list[str]:
    return [f"{score.baselines[kind]:.1f}" if kind in score.baselines else "left out" for kind in BASELINES]


def _format_warnings(score: TaskScore) -> str:
    warnings = ["same answer for every row"] if score.collapsed else []
    warnings += [f"{score.outside} answers outside the label set"] if score.outside else []
    return f" ({', '.join(warnings)})" if warnings else ""
