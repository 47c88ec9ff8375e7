"""Tables and plots of the cells that are there, and of nothing else.

    python -m experiments.tables     # writes the tables of docs/results.md, and docs/figures/*.svg

A table stands in the document after a line that names it: `<!-- table: SUITE test -->`, `rates` or `steps` of a
comparison, `<!-- table: SUITE TASK -->` of a transfer. ± is the standard deviation over seeds, minutes are of one
processor. A contender whose seeds are not all there is marked with how many are.
"""

from __future__ import annotations

import io
import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments import store
from experiments.comparison import Comparison
from experiments.plan import ROOT, ComparisonSuite, TransferSuite, plan
from experiments.store import Cell
from experiments.transfer import REGRESSION, cell_of
from hyperformer.config import nearest
from hyperformer.report.predictions import principal
from hyperformer.types import HyperFormerError

RESULTS, FIGURES = ROOT / "docs" / "results.md", ROOT / "docs" / "figures"
PLACE = re.compile(r"(<!-- table: (.+) -->\n)(?:\|.*\n)*")
NOT_METRICS = ("mean", "collapsed", "outside")
NAMES = {
    "hyperformer_plus_plus": "HyperFormer++",
    "hyperformer": "HyperFormer",
    "adapters_multi_task": "Adapters†",
    "adapters_per_task": "Adapters per task",
    "fine_tuning_multi_task": "fine-tuning, multi-task",
    "fine_tuning_per_task": "fine-tuning per task",
}
REGRESSIONS = {
    "majority": "the commonest answer",
    "tfidf": "regression on words",
    "overlap": "regression on words and what two texts share",
    "frozen": "regression on frozen embeddings",
}


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    more = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{more}"


def counted(values: Sequence[float], seeds: int, best: float) -> str:
    """Mean ± standard deviation, bold if it is the best, and of how many seeds, if not of all."""
    mean, *more = spread(values).split(maxsplit=1)
    said = f"**{mean}**" if statistics.mean(values) == best else mean
    return " ".join([said, *more, *([f"(seeds: {len(values)})"] if len(values) < seeds else [])])


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def compared(comparison: Comparison) -> dict[str, list[Cell]]:
    """The finished cells of each contender's chosen rate, by seed."""
    found: dict[str, list[Cell]] = {}
    for contender in comparison.suite.contenders:
        chosen = comparison.chosen(contender)
        names = [chosen, *(comparison.other(contender, seed) for seed in comparison.suite.seeds[1:])] if chosen else []
        there = [store.read("comparison", comparison.name, name) for name in names]
        if there:
            found[contender] = [cell for cell in there if cell is not None]
    return found


def whole(found: Mapping[str, Sequence[Cell]], suite: ComparisonSuite) -> bool:
    """Whether every contender has its cell of every seed."""
    return [len(runs) for runs in found.values()] == [len(suite.seeds)] * len(suite.contenders)


def mean_of_tasks(cell: Cell) -> float:
    """The mean over tasks of each task's mean metric."""
    return statistics.mean(one["mean"] for one in cell["test"].values())


def mean_of_metrics(cell: Cell) -> float:
    """The mean of all metrics, the paper's Avg."""
    return statistics.mean(v for one in cell["test"].values() for k, v in one.items() if k not in NOT_METRICS)


def comparison_tables(name: str, suite: ComparisonSuite) -> dict[str, str]:
    """By name: test metrics of each contender with its chosen rate, and validation means by rate and by step."""
    comparison = Comparison(name, suite)
    found = compared(comparison)
    if not found:
        return {}
    by_task = {
        task: [kind for kind in one if kind not in NOT_METRICS]
        for task, one in next(iter(found.values()))[0]["test"].items()
    }
    minutes = {
        contender: [run["processor_seconds"] / 60 for run in runs if run["processor_seconds"]]
        for contender, runs in found.items()
    }
    timed = any(minutes.values())
    test, tried = [], []
    for contender, runs in found.items():
        parameters = runs[0]["parameters"]
        test.append(
            [
                said(contender) + ("" if len(runs) == len(suite.seeds) else f" (seeds: {len(runs)})"),
                *(metrics_of([run["test"][task] for run in runs], kinds) for task, kinds in by_task.items()),
                spread([mean_of_metrics(run) for run in runs]),
                f"**{spread([mean_of_tasks(run) for run in runs])}**",
                f"{parameters['total_ratio']:.3f}",
                f"{parameters['trained_percent_per_task']:.2f}",
                *([f"{statistics.median(minutes[contender]):.0f}" if minutes[contender] else ""] if timed else []),
            ]
        )
        by_rate = comparison.found_by_rate(contender)
        tried.append([said(contender), *marked([by_rate.get(rate) for rate in suite.rates])])
    means = [f"{sum(map(len, by_task.values()))} metrics", f"{len(by_task)} tasks"]
    head = ["method", *by_task, *means, "kept, in backbones", "trained a task, %", *(["minutes"] if timed else [])]
    rates = [f"{rate:.0e}".replace("e-0", "e-") for rate in suite.rates]
    shown = {f"{name} test": table(head, test), f"{name} rates": table(["method", *rates], tried)}
    learnt = {contender: runs[0].get("by_step", {}) for contender, runs in found.items()}
    if all(len(by_step) > 1 for by_step in learnt.values()):
        steps = next(iter(learnt.values()))
        lines = [[said(contender), *marked(list(by_step.values()))] for contender, by_step in learnt.items()]
        shown[f"{name} steps"] = table(["method", *steps], lines)
    return shown


def metrics_of(test: Sequence[Mapping[str, float]], kinds: Sequence[str]) -> str:
    """A task's metric with its spread over seeds; of several metrics the means alone, beside each other."""
    if len(kinds) == 1:
        return spread([one[kinds[0]] for one in test])
    return " / ".join(f"{statistics.mean(one[kind] for one in test):.1f}" for kind in kinds)


def marked(values: Sequence[float | None]) -> list[str]:
    """Values in a table's line, the highest one bold; those that are None are empty."""
    best = max((value for value in values if value is not None), default=None)
    return ["" if v is None else f"**{v:.1f}**" if v == best else f"{v:.1f}" for v in values]


def transferred(name: str, suite: TransferSuite, task: str) -> dict[str, dict[int, list[float]]]:
    """Contender → samples → test mean metric of every seed; of the finished cells."""
    found: dict[str, dict[int, list[float]]] = {}
    for contender in [*suite.contenders, REGRESSION]:
        for samples in suite.samples:
            cell = store.read("transfer", name, cell_of(task, contender, samples))
            for run in cell["runs"] if cell else []:
                scores = run["test"] if contender == REGRESSION else {contender: run["test"]}
                for kind, score in scores.items():
                    if contender != REGRESSION or kind in REGRESSIONS:
                        found.setdefault(REGRESSIONS.get(kind, kind), {}).setdefault(samples, []).append(score)
    return found


def transfer_tables(name: str, suite: TransferSuite) -> dict[str, str]:
    """By name: a task's test metrics by number of samples."""
    shown = {}
    for task in suite.tasks:
        found = transferred(name, suite, task)
        means = {n: [statistics.mean(by[n]) for by in found.values() if n in by] for n in suite.samples}
        lines = []
        for contender, by in found.items():
            texts = [counted(by[n], len(suite.seeds), max(means[n])) if n in by else "" for n in suite.samples]
            lines.append([said(contender), *texts])
        if lines:
            shown[f"{name} {task}"] = table([f"{task}, rows", *map(str, suite.samples)], lines)
    return shown


def said(contender: str) -> str:
    """A contender's name for readers."""
    method, comma, how = contender.partition(",")
    return f"{NAMES.get(method, method)}{comma}{how}"


def bars(name: str, suite: ComparisonSuite) -> Figure | None:
    """Each contender's mean over tasks, with every seed's; None while a cell is missing, or of one contender alone."""
    found = compared(Comparison(name, suite))
    if len(found) < 2 or not whole(found, suite):
        return None
    figure = Figure(figsize=(8, 0.6 * len(found) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, runs in enumerate(found.values()):
        means = [mean_of_tasks(run) for run in runs]
        axes.barh(place, statistics.mean(means), color="#7aa6c2")
        axes.plot(means, [place] * len(means), "o", color="#222222", markersize=4)
        axes.annotate(f"{spread(means)} ", (0, place), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(found)), [said(contender) for contender in found])
    axes.invert_yaxis()
    axes.set_xlabel(f"{name}: mean of the tasks' test metrics, percent; a dot a seed")
    return figure


def curves(name: str, suite: TransferSuite) -> Figure | None:
    """Test metric by samples: the mean over seeds, and a band of one standard deviation; as `bars`."""
    wanted = itertools.product(suite.tasks, [*suite.contenders, REGRESSION], suite.samples)
    there = [store.read("transfer", name, cell_of(*one)) for one in wanted]
    if not all(cell and len(cell["runs"]) == len(suite.seeds) for cell in there):
        return None
    found = {task: transferred(name, suite, task) for task in suite.tasks}
    figure = Figure(figsize=(5 * len(found), 4), layout="constrained")
    for axes, (task, contenders) in zip(np.atleast_1d(figure.subplots(1, len(found))), found.items(), strict=True):
        for contender, by in contenders.items():
            means = np.array([statistics.mean(by[n]) for n in suite.samples])
            spreads = np.array([statistics.stdev(by[n]) if len(by[n]) > 1 else 0.0 for n in suite.samples])
            axes.plot(suite.samples, means, marker="o", markersize=4, label=said(contender))
            axes.fill_between(suite.samples, means - spreads, means + spreads, alpha=0.15)
        axes.set(xscale="log", title=f"{name}: {task}", xlabel="samples", ylabel="test, percent")
        axes.set_xticks(suite.samples, list(map(str, suite.samples)), minor=False)
        axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def embedding_map(name: str, suite: ComparisonSuite) -> Figure | None:
    """The task embeddings of HyperFormer++, first seed, on their first two principal components; as `bars`."""
    found = compared(Comparison(name, suite))
    if not whole(found, suite) or "hyperformer_plus_plus" not in found:
        return None
    embeddings: Mapping[str, list[float]] = found["hyperformer_plus_plus"][0]["embeddings"]
    places, shares = principal(np.array(list(embeddings.values())))
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*places.T, color="#7aa6c2")
    for task, place in zip(embeddings, places, strict=True):
        axes.annotate(task, place, textcoords="offset points", xytext=(5, 4))
    axes.margins(0.2)
    axes.set_title(f"{name}: task embeddings, {100 * shares.sum():.0f} % of their variance")
    return figure


def draw(figure: Figure | None, path: Path) -> None:
    """Writes a figure as SVG, the same bytes for the same cells."""
    if figure is None:
        return
    with matplotlib.rc_context({"svg.hashsalt": "hyperformer"}):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n", encoding="utf-8")


def every_table() -> dict[str, str]:
    """All tables of the plan's suites that have cells, by name."""
    whole = plan()
    compared = [comparison_tables(name, suite) for name, suite in whole.comparison.items()]
    few = [transfer_tables(name, suite) for name, suite in whole.transfer.items()]
    return {name: table for tables in [*compared, *few] for name, table in tables.items()}


def main() -> None:
    shown, text = every_table(), RESULTS.read_text(encoding="utf-8")
    if unknown := [name for _, name in PLACE.findall(text) if name not in shown]:
        raise HyperFormerError(f"{RESULTS}: unknown table {unknown[0]!r}; {nearest(unknown[0], shown)}")
    RESULTS.write_text(PLACE.sub(lambda place: f"{place[1]}{shown[place[2]]}\n", text), encoding="utf-8")
    whole = plan()
    for name, suite in whole.comparison.items():
        draw(bars(name, suite), FIGURES / f"comparison-{name}.svg")
        draw(embedding_map(name, suite), FIGURES / f"embeddings-{name}.svg")
    for name, few in whole.transfer.items():
        draw(curves(name, few), FIGURES / f"transfer-{name}.svg")


if __name__ == "__main__":
    try:
        main()
    except HyperFormerError as error:
        raise SystemExit(str(error)) from None
