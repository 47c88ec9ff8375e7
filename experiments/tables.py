"""Tables and plots of the recorded runs.

    python -m experiments.tables     # writes the tables of docs/results.md, and docs/figures/*.svg

A comment in the document marks the insertion point of a table. For a comparison it is `<!-- table: SUITE test -->`, or
with `paired`, `rates` or `steps` in place of `test`; for a transfer it is `<!-- table: SUITE TASK -->`. ± is the
standard deviation over seeds. "CPU minutes" is the CPU time of training, summed over the cores; the median over seeds.
If some seeds of a configuration have no run, the number of its finished seeds is shown.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments import store
from experiments.comparison import Comparison
from experiments.plan import ROOT, ComparisonSuite, TransferSuite, load_plan
from experiments.store import Run
from experiments.transfer import REGRESSION, run_name
from hyperformer.core.errors import HyperFormerError, suggest_name
from hyperformer.methods import METHODS
from hyperformer.report.statistics import project_to_principal_components
from hyperformer.report.svg import render_svg

RESULTS = ROOT / "docs" / "results.md"
FIGURES = ROOT / "docs" / "figures"
MARKER = re.compile(r"(<!-- table: (.+) -->\n)(?:\|.*\n)*")
"""The comment that names a table, and the table's lines below it."""
DIAGNOSTICS = ("mean", "auc", "collapsed", "outside")
"""Entries of a task's scores that are not metrics of the task."""
REGRESSIONS = {
    "majority": "majority label",
    "tfidf": "logistic regression on TF-IDF",
    "overlap": "logistic regression on TF-IDF and text overlap",
    "frozen": "logistic regression on frozen embeddings",
}


def mean_and_deviation(values: Sequence[float]) -> str:
    """Format the mean, and ± the standard deviation if there are several values."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def format_seeds(values: Sequence[float], seeds: int, best: float) -> str:
    """Format the mean ± standard deviation, bold if the mean is the best, and the number of seeds if some are missing.

    Args:
        values: The value of each finished seed.
        seeds: The number of planned seeds.
        best: The highest mean in the table's column.
    """
    mean, *deviation = mean_and_deviation(values).split(maxsplit=1)
    text = f"**{mean}**" if statistics.mean(values) == best else mean
    return " ".join([text, *deviation, *([f"(seeds: {len(values)})"] if len(values) < seeds else [])])


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def chosen_runs(comparison: Comparison) -> dict[str, list[Run]]:
    """Return the finished runs at the chosen learning rate, by configuration and in the order of the seeds.

    Configurations whose search of the learning rate is incomplete are omitted.
    """
    runs: dict[str, list[Run]] = {}
    for configuration in comparison.suite.configurations:
        chosen = comparison.chosen_run(configuration)
        seeds = comparison.suite.seeds[1:]
        names = [chosen, *(comparison.seed_run(configuration, seed) for seed in seeds)] if chosen else []
        finished = [store.read("comparison", comparison.name, name) for name in names]
        if finished:
            runs[configuration] = [run for run in finished if run is not None]
    return runs


def is_complete(runs: Mapping[str, Sequence[Run]], suite: ComparisonSuite) -> bool:
    """Return whether every configuration has a run of every seed."""
    return [len(seeds) for seeds in runs.values()] == [len(suite.seeds)] * len(suite.configurations)


def mean_of_tasks(run: Run) -> float:
    """Return the mean over tasks, where each task counts with the mean of its test metrics."""
    return statistics.mean(scores["mean"] for scores in run["test"].values())


def mean_of_metrics(run: Run) -> float:
    """Return the mean of all test metrics of all tasks, which the paper calls Avg."""
    return statistics.mean(v for scores in run["test"].values() for k, v in scores.items() if k not in DIAGNOSTICS)


def comparison_tables(name: str, suite: ComparisonSuite) -> dict[str, str]:
    """Return the tables of a comparison, by their names in the document.

    Returns:
        `test`: the test metrics at the chosen learning rate; `paired`, if the suite has small tasks: means over tasks,
        and their differences from the first configuration; `rates`: the first seed's validation means by learning
        rate; `steps`: those at the chosen learning rate by step, if each run has several. Without runs, no tables.
    """
    comparison = Comparison(name, suite)
    runs = chosen_runs(comparison)
    if not runs:
        return {}
    metrics = {
        task: [metric for metric in scores if metric not in DIAGNOSTICS]
        for task, scores in next(iter(runs.values()))[0]["test"].items()
    }
    minutes = {
        configuration: [run["cpu_seconds"] / 60 for run in seeds if run["cpu_seconds"]]
        for configuration, seeds in runs.items()
    }
    timed = any(minutes.values())
    test, search = [], []
    for configuration, seeds in runs.items():
        parameters = seeds[0]["parameters"]
        test.append(
            [
                display_name(configuration) + ("" if len(seeds) == len(suite.seeds) else f" (seeds: {len(seeds)})"),
                *(format_metrics([run["test"][task] for run in seeds], kinds) for task, kinds in metrics.items()),
                mean_and_deviation([mean_of_metrics(run) for run in seeds]),
                f"**{mean_and_deviation([mean_of_tasks(run) for run in seeds])}**",
                f"{parameters['total_ratio']:.3f}",
                f"{parameters['trained_percent_per_task']:.2f}",
                *(
                    [f"{statistics.median(minutes[configuration]):.0f}" if minutes[configuration] else ""]
                    if timed
                    else []
                ),
            ]
        )
        means = comparison.validation_means(configuration)
        search.append([display_name(configuration), *format_best([means.get(rate) for rate in suite.learning_rates])])
    head = [
        "method",
        *metrics,
        f"mean of {sum(map(len, metrics.values()))} metrics",
        f"mean of {len(metrics)} tasks",
        "total parameters (× backbone)",  # noqa: RUF001
        "trainable parameters per task (% of backbone)",
        *(["CPU minutes"] if timed else []),
    ]
    learning_rates = [f"{learning_rate:.0e}".replace("e-0", "e-") for learning_rate in suite.learning_rates]
    tables = {
        f"{name} test": table(head, test),
        f"{name} rates": table(["method, by learning rate", *learning_rates], search),
    }
    if suite.small_tasks:
        tables[f"{name} paired"] = paired_table(runs, suite)
    curves = {configuration: seeds[0].get("by_step", {}) for configuration, seeds in runs.items()}
    if all(len(by_step) > 1 for by_step in curves.values()):
        steps = next(iter(curves.values()))
        lines = [
            [display_name(configuration), *format_best(list(by_step.values()))]
            for configuration, by_step in curves.items()
        ]
        tables[f"{name} steps"] = table(["method, by step", *steps], lines)
    return tables


def paired_table(runs: Mapping[str, Sequence[Run]], suite: ComparisonSuite) -> str:
    """Return a table of the means over tasks, and of their differences from the first configuration seed by seed.

    The second mean leaves out the suite's small tasks; the differences are those of this mean. ± is the standard error
    of the differences of the seeds.
    """

    def means(seeds: Sequence[Run]) -> list[float]:
        return [
            statistics.mean(scores["mean"] for task, scores in run["test"].items() if task not in suite.small_tasks)
            for run in seeds
        ]

    first = means(next(iter(runs.values())))
    lines = []
    for number, (configuration, seeds) in enumerate(runs.items()):
        differences = [b - a for a, b in zip(first, means(seeds), strict=False)] if number else []
        error = f" ± {statistics.stdev(differences) / len(differences) ** 0.5:.2f}" if len(differences) > 1 else ""
        lines.append(
            [
                display_name(configuration),
                f"{seeds[0]['parameters']['trained']:,}",
                f"{seeds[0]['learning_rate']:g}",
                mean_and_deviation([mean_of_tasks(run) for run in seeds]),
                f"**{mean_and_deviation(means(seeds))}**",
                ", ".join(f"{difference:+.1f}" for difference in differences),
                f"{statistics.mean(differences):+.2f}{error}" if differences else "",
            ]
        )
    tasks = len(next(iter(runs.values()))[0]["test"])
    head = [
        "method",
        "trained parameters",
        "learning rate",
        f"mean of {tasks} tasks",
        f"mean of {tasks - len(suite.small_tasks)} tasks",
        "difference by seed",
        "mean difference",
    ]
    return table(head, lines)


def format_metrics(seeds: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> str:
    """Format a task's only metric with its deviation over seeds, or several metrics without their deviations."""
    if len(metrics) == 1:
        return mean_and_deviation([scores[metrics[0]] for scores in seeds])
    return " / ".join(f"{statistics.mean(scores[metric] for scores in seeds):.1f}" for metric in metrics)


def format_best(values: Sequence[float | None]) -> list[str]:
    """Format the values of a table's line: the highest value in bold, and None as an empty text."""
    best = max((value for value in values if value is not None), default=None)
    return ["" if v is None else f"**{v:.1f}**" if v == best else f"{v:.1f}" for v in values]


def transfer_scores(name: str, suite: TransferSuite, task: str) -> dict[str, dict[int, list[float]]]:
    """Return a task's mean test metric for each seed, by configuration or baseline and number of samples."""
    scores: dict[str, dict[int, list[float]]] = {}
    for configuration in [*suite.configurations, REGRESSION]:
        for samples in suite.samples:
            run = store.read("transfer", name, run_name(task, configuration, samples))
            for seed in run["seeds"] if run else []:
                tests = seed["test"] if configuration == REGRESSION else {configuration: seed["test"]}
                for kind, score in tests.items():
                    if configuration != REGRESSION or kind in REGRESSIONS:
                        scores.setdefault(REGRESSIONS.get(kind, kind), {}).setdefault(samples, []).append(score)
    return scores


def transfer_tables(name: str, suite: TransferSuite) -> dict[str, str]:
    """Return, by name, a table of test metrics by number of samples for each task that has runs."""
    tables = {}
    for task in suite.tasks:
        scores = transfer_scores(name, suite, task)
        means = {n: [statistics.mean(by[n]) for by in scores.values() if n in by] for n in suite.samples}
        lines = []
        for configuration, by in scores.items():
            texts = [format_seeds(by[n], len(suite.seeds), max(means[n])) if n in by else "" for n in suite.samples]
            lines.append([display_name(configuration), *texts])
        if lines:
            head = [f"{task}, by number of training rows", *map(str, suite.samples)]
            tables[f"{name} {task}"] = table(head, lines)
    return tables


def display_name(configuration: str) -> str:
    """Return a configuration's name in the spelling of the documents."""
    method, comma, variant = configuration.partition(",")
    name = METHODS[method].display_name if method in METHODS else method
    return f"{name}{comma}{variant}"


def plot_comparison(name: str, suite: ComparisonSuite) -> Figure | None:
    """Plot each configuration's mean over tasks: over all seeds, and for each seed.

    Returns:
        The figure; None if a run is missing or there is only one configuration.
    """
    runs = chosen_runs(Comparison(name, suite))
    if len(runs) < 2 or not is_complete(runs, suite):
        return None
    figure = Figure(figsize=(8, 0.6 * len(runs) + 1.2), layout="constrained")
    axes = figure.subplots()
    for y, seeds in enumerate(runs.values()):
        means = [mean_of_tasks(run) for run in seeds]
        axes.barh(y, statistics.mean(means), color="#7aa6c2")
        axes.plot(means, [y] * len(means), "o", color="#222222", markersize=4)
        label = f"{mean_and_deviation(means)} "
        axes.annotate(label, (0, y), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(runs)), [display_name(configuration) for configuration in runs])
    axes.invert_yaxis()
    axes.set_xlabel(f"{name}: mean of the tasks' test metrics (%), one dot per seed")
    return figure


def plot_transfer(name: str, suite: TransferSuite) -> Figure | None:
    """Plot test metrics by number of samples: the mean over seeds in a band of ± one standard deviation.

    Returns:
        The figure; None if a run is missing.
    """
    planned = itertools.product(suite.tasks, [*suite.configurations, REGRESSION], suite.samples)
    runs = [store.read("transfer", name, run_name(*arguments)) for arguments in planned]
    if not all(run and len(run["seeds"]) == len(suite.seeds) for run in runs):
        return None
    scores = {task: transfer_scores(name, suite, task) for task in suite.tasks}
    figure = Figure(figsize=(5 * len(scores), 4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(scores)))
    for axes, (task, configurations) in zip(panels, scores.items(), strict=True):
        for configuration, by in configurations.items():
            means = np.array([statistics.mean(by[n]) for n in suite.samples])
            deviations = np.array([statistics.stdev(by[n]) if len(by[n]) > 1 else 0.0 for n in suite.samples])
            axes.plot(suite.samples, means, marker="o", markersize=4, label=display_name(configuration))
            axes.fill_between(suite.samples, means - deviations, means + deviations, alpha=0.15)
        axes.set(xscale="log", title=f"{name}: {task}", xlabel="training rows", ylabel="test metric (%)")
        axes.set_xticks(suite.samples, list(map(str, suite.samples)), minor=False)
        axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def plot_embeddings(name: str, suite: ComparisonSuite) -> Figure | None:
    """Plot the first seed's task embeddings of HyperFormer++ on their first two principal components.

    Returns:
        The figure; None if a run is missing or HyperFormer++ is not in the suite.
    """
    runs = chosen_runs(Comparison(name, suite))
    if not is_complete(runs, suite) or "hyperformer_plus_plus" not in runs:
        return None
    embeddings: Mapping[str, list[float]] = runs["hyperformer_plus_plus"][0]["embeddings"]
    points, shares = project_to_principal_components(np.array(list(embeddings.values())))
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*points.T, color="#7aa6c2")
    for task, point in zip(embeddings, points, strict=True):
        axes.annotate(task, point, textcoords="offset points", xytext=(5, 4))
    axes.margins(0.2)
    axes.set_title(f"{name}: task embeddings, {100 * shares.sum():.0f} % of their variance")
    return figure


def save_figure(figure: Figure | None, path: Path) -> None:
    """Write a figure, unless it is None, as SVG; the same runs give the same bytes."""
    if figure is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_svg(figure), encoding="utf-8")


def all_tables() -> dict[str, str]:
    """Return the tables of all suites with recorded runs, by name."""
    plan = load_plan()
    comparisons = [comparison_tables(name, suite) for name, suite in plan.comparison.items()]
    transfers = [transfer_tables(name, suite) for name, suite in plan.transfer.items()]
    return {name: text for tables in [*comparisons, *transfers] for name, text in tables.items()}


def main() -> None:
    """Write the tables of docs/results.md and the figures in docs/figures."""
    tables, text = all_tables(), RESULTS.read_text(encoding="utf-8")
    if unknown := [name for _, name in MARKER.findall(text) if name not in tables]:
        raise HyperFormerError(f"{RESULTS}: unknown table {unknown[0]!r}; {suggest_name(unknown[0], tables)}")
    RESULTS.write_text(MARKER.sub(lambda match: f"{match[1]}{tables[match[2]]}\n", text), encoding="utf-8")
    plan = load_plan()
    for name, suite in plan.comparison.items():
        save_figure(plot_comparison(name, suite), FIGURES / f"comparison-{name}.svg")
        save_figure(plot_embeddings(name, suite), FIGURES / f"embeddings-{name}.svg")
    for name, transfer in plan.transfer.items():
        save_figure(plot_transfer(name, transfer), FIGURES / f"transfer-{name}.svg")


if __name__ == "__main__":
    try:
        main()
    except HyperFormerError as error:
        raise SystemExit(str(error)) from None
