"""How good the run is: test metrics beside those of baselines, and what they cost in parameters."""

from __future__ import annotations

from collections.abc import Mapping

from hyperformer.evaluation import standard_error
from hyperformer.report.markup import Strong, Table, markdown
from hyperformer.report.run import Run

BASELINES = {"majority": "majority", "tfidf": "TF-IDF", "overlap": "+ overlap", "frozen": "frozen"}


def tables(run: Run) -> str:
    """Test metrics beside baselines and what export found, in percent, and the parameters, in Markdown."""
    return f"{markdown(scores(run))}\n{markdown(parameters(run))}"


def scores(run: Run) -> Table:
    """Test metrics of each task and their mean beside the baselines', in percent, and what export found."""
    rows = []
    for name, found in by_task(run).items():
        parity = run.manifests[name].parity if name in run.manifests else None
        rows.append(
            [
                name,
                ", ".join(run.tasks[name].settings.metrics),
                str(run.counts[name]["test"]["rows"]),
                Strong(f"{found['model']:.1f}{_warnings(run.metrics['test'][name])}"),
                f"{found['error']:.1f}",
                *(f"{found[kind]:.1f}" for kind in BASELINES),
                f"{parity['rows']:.0f} ({parity['ties']:.0f})" if parity else "not exported",
            ]
        )
    mean = means(run)
    rows.append(["mean", "", "", Strong(f"{mean['model']:.1f}"), "", *(f"{mean[kind]:.1f}" for kind in BASELINES), ""])
    head = ["task", "metrics", "test rows", run.method, "± s.e.", *BASELINES.values(), "parity (ties)"]
    return Table(head, rows)


def by_task(run: Run) -> dict[str, dict[str, float]]:
    """Of each task in percent: `model`, its standard `error`, and each baseline."""
    found = {}
    for name, task in run.tasks.items():
        result, others = run.metrics["test"][name], run.baselines[name]
        error = standard_error(task, result, run.counts[name]["test"]["rows"])
        plain = {kind: others.get(kind, others["tfidf"])["mean"] for kind in BASELINES}  # no overlap of a single text
        found[name] = {"model": result["mean"], "error": error, **plain}
    return found


def means(run: Run) -> dict[str, float]:
    """`by_task` over tasks; the error is that of independent tasks."""
    found = list(by_task(run).values())
    mean = {kind: sum(one[kind] for one in found) / len(found) for kind in found[0]}
    return {**mean, "error": sum(one["error"] ** 2 for one in found) ** 0.5 / len(found)}


def _warnings(result: Mapping[str, float]) -> str:
    words = ["one answer only"] if result.get("collapsed") else []
    words += [f"{result['outside']:.0f} answers outside"] if result.get("outside") else []
    return f" ({', '.join(words)})" if words else ""


def parameters(run: Run) -> Table:
    """How many parameters the method adds, trains and keeps."""
    counts = run.parameters
    head = "parameters|backbone|added|trained|all tasks, in backbones|trained a task, % of the backbone".split("|")
    cells = [
        *(f"{counts[kind]:,}" for kind in ("backbone", "added", "trained")),
        f"{counts['total_ratio']:.3f}",
        f"{counts['trained_percent_per_task']:.3f}",
    ]
    return Table(head, [[run.method, *cells]])
