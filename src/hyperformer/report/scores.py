"""Tables of a run's results: test metrics next to baselines, and parameter counts."""

from __future__ import annotations

from collections.abc import Mapping

from hyperformer.evaluation import standard_error
from hyperformer.report.markup import Emphasis, Table, to_markdown
from hyperformer.report.run import Run

BASELINES = {"majority": "majority", "tfidf": "TF-IDF", "overlap": "TF-IDF + overlap", "frozen": "frozen embeddings"}
"""Baselines by their keys in metrics, with the names that a reader sees."""


def render_results(run: Run) -> str:
    """Render test metrics, baselines and parameter counts as Markdown tables; metrics are in percent."""
    return f"{to_markdown(build_score_table(run))}\n{to_markdown(build_parameter_table(run))}"


def build_score_table(run: Run) -> Table:
    """Build the table of test metrics by task, with baselines and export checks; metrics are in percent."""
    rows = []
    for name, scores in collect_scores(run).items():
        parity = run.manifests[name].parity if name in run.manifests else None
        rows.append(
            [
                name,
                ", ".join(run.tasks[name].settings.metrics),
                str(run.counts[name]["test"]["rows"]),
                Emphasis(f"{scores['model']:.1f}{_warnings(run.metrics['test'][name])}"),
                f"{scores['error']:.1f}",
                *(f"{scores[kind]:.1f}" for kind in BASELINES),
                f"{parity['rows']:.0f} ({parity['ties']:.0f})" if parity else "not exported",
            ]
        )
    mean = average_scores(run)
    baselines = (f"{mean[kind]:.1f}" for kind in BASELINES)
    rows.append(["mean", "", "", Emphasis(f"{mean['model']:.1f}"), "", *baselines, ""])
    names = BASELINES.values()
    header = ["task", "metrics", "test rows", run.method, "± standard error", *names, "export check: rows (ties)"]
    return Table(header, rows)


def collect_scores(run: Run) -> dict[str, dict[str, float]]:
    """Return the `model` score, its standard `error` and the baseline scores of each task, in percent."""
    scores = {}
    for name, task in run.tasks.items():
        result, others = run.metrics["test"][name], run.baselines[name]
        error = standard_error(task, result, run.counts[name]["test"]["rows"])
        # A task with one text has no overlap between texts, so TF-IDF replaces this baseline.
        baselines = {kind: others.get(kind, others["tfidf"])["mean"] for kind in BASELINES}
        scores[name] = {"model": result["mean"], "error": error, **baselines}
    return scores


def average_scores(run: Run) -> dict[str, float]:
    """Average `collect_scores` over tasks; the standard error assumes independent tasks."""
    scores = list(collect_scores(run).values())
    mean = {kind: sum(score[kind] for score in scores) / len(scores) for kind in scores[0]}
    return {**mean, "error": sum(score["error"] ** 2 for score in scores) ** 0.5 / len(scores)}


def _warnings(result: Mapping[str, float]) -> str:
    warnings = ["same answer for every row"] if result.get("collapsed") else []
    warnings += [f"{result['outside']:.0f} answers outside the label set"] if result.get("outside") else []
    return f" ({', '.join(warnings)})" if warnings else ""


def build_parameter_table(run: Run) -> Table:
    """Build the table of backbone, added, trainable and total parameters."""
    counts = run.parameters
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
    return Table(header, [[run.method, *values]])
