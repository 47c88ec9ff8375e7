"""The page of a run: a question a section, its answer in a sentence, and the tables and pictures that show it."""

from __future__ import annotations

from collections.abc import Mapping

from hyperformer.report import answers, lineage, predictions
from hyperformer.report.figures import Picture
from hyperformer.report.markup import Table, answer, details, escaped, grid, paragraph, table
from hyperformer.report.pictures import lowest, pictures, validated
from hyperformer.report.run import Run
from hyperformer.report.scores import BASELINES, by_task, means, scores
from hyperformer.report.style import STYLE


def page(run: Run) -> str:
    """The report as one HTML page that needs nothing else, of the same bytes for the same run."""
    shown = pictures(run)
    sections = {
        "How good is it?": _scores(run, shown["scores"]),
        "Did it learn to the end?": _learning(run, shown["learning"]),
        "Where is it wrong?": answers.mistakes(run, shown["numbers"]),
        "Can its probabilities be believed?": answers.calibration(run, shown["calibration"]),
        "What does it think is alike?": _alike(run, shown["embeddings"]),
        "What does it cost?": lineage.cost(run),
        "Do the graphs answer as the model did?": lineage.parity(run),
        "Where does it come from?": lineage.lineage(run),
    }
    title = f"{run.method} on {len(run.tasks)} task{'s' if len(run.tasks) > 1 else ''}"
    return whole(
        title, "What a run reached on its test split, and how far that can be trusted. Scores are in percent.", sections
    )


def whole(title: str, about: str, sections: Mapping[str, str]) -> str:
    """A page that needs nothing else: questions, and what answers each."""
    links = "".join(f'<li><a href="#q{number}">{name}</a></li>' for number, name in enumerate(sections, 1))
    body = "".join(
        f'<section id="q{number}" aria-labelledby="h{number}">\n<h2 id="h{number}">{name}</h2>\n{content}</section>\n'
        for number, (name, content) in enumerate(sections.items(), 1)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)} · HyperFormer report</title>
<link rel="icon" href="data:,">
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1>{escaped(title)}</h1>
<p>{escaped(about)}</p>
<nav aria-label="Questions"><ol>{links}</ol></nav>
</header>
<main>
{body}</main>
</body>
</html>
"""


def _scores(run: Run, shown: Mapping[str, Picture]) -> str:
    found, mean = by_task(run), means(run)
    best = max(BASELINES, key=lambda kind: mean[kind])
    behind = [name for name, one in found.items() if one["model"] <= max(one[kind] for kind in BASELINES)]
    beaten = f"Not above its best baseline: {', '.join(behind)}." if behind else "Every task is above its baselines."
    return (
        answer(
            f"The mean over tasks is {mean['model']:.1f} ± {mean['error']:.1f}; the best baseline, "
            f"{BASELINES[best]}, has {mean[best]:.1f}. {beaten}"
        )
        + str(shown["tasks"])
        + table(scores(run), "Test split, percent")
        + paragraph(
            "A task of several metrics shows their mean; s.e. is one standard error. Baselines: the commonest answer; "
            "logistic regression on words and word pairs (TF-IDF), on these and how two texts overlap, and on the "
            "frozen backbone's embeddings."
        )
    )


def _learning(run: Run, shown: Mapping[str, Picture]) -> str:
    history = run.history
    if not history:
        return answer("Nothing was validated while it was trained.")
    last = history[-1]["step"]
    names = validated(run)
    best = {name: max(history, key=lambda line: line[name])["step"] for name in names}
    peak = max(line["mean"] for line in history)
    told = f"The best validation mean, {peak:.1f}, is at step {best['mean']:.0f} of {last:.0f}"
    if best["mean"] == last:
        told += ", the last one: more steps may help." if len(history) > 1 else "."
    else:
        told += ": it was past its best at the end."
    rising = [name for name in names[1:] if best[name] == last and len(history) > 1]
    values = Table(
        ["step", *names], [[f"{line['step']:.0f}", *(f"{line[name]:.1f}" for name in names)] for line in history]
    )
    return (
        answer(told)
        + paragraph(
            f"Validation during training, percent by step, on one scale from {lowest(run):.0f} to 100; a ring marks "
            f"the best. At their best at the last step: {', '.join(rising) or 'none'}."
        )
        + grid(map(str, shown.values()))
        + details("The numbers", table(values, "Validation, percent by step"))
    )


def _alike(run: Run, shown: Mapping[str, Picture]) -> str:
    found = run.embeddings()
    if found is None:
        return answer(f"The method {run.method} has no task embeddings: nothing in it says how alike tasks are.")
    names, embeddings = found
    if len(names) == 1:
        return answer("There is one task only, so there is none to be like.")
    cosines = predictions.cosines(embeddings)
    pairs = [(cosines[i, j], names[i], names[j]) for i in range(len(names)) for j in range(i)]
    most, least = max(pairs), min(pairs)
    chance = 1.96 / embeddings.shape[1] ** 0.5
    alike = "" if most[0] > chance else " No two are more alike than random vectors may be."
    rows = [
        [name, *(f"{value:.2f}" for value in line)] for name, line in zip(names, cosines.round(2) + 0.0, strict=True)
    ]
    return (
        answer(
            f"Most alike are {most[2]} and {most[1]} (cosine {most[0]:.2f}), least {least[2]} and {least[1]} "
            f"({least[0]:.2f}).{alike}"
        )
        + paragraph(
            "The learned embeddings of tasks, from which the method writes their adapters. Of random vectors of this "
            f"size, {embeddings.shape[1]}, the cosine of 19 pairs in 20 is within ±{chance:.2f}: "
            "only what is beyond says anything. The map shows as much as its two components hold of the variance."
        )
        + str(shown["tasks"])
        + table(Table(["task", *names], rows), "Cosine similarity of task embeddings", abs(cosines).tolist())
    )
