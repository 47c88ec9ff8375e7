"""The HTML page of a run: each section answers one question with a sentence, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping

from hyperformer.report import answers, lineage, predictions
from hyperformer.report.figures import Chart
from hyperformer.report.markup import Table, answer, details, escape, grid, paragraph, table
from hyperformer.report.pictures import choose_axis_minimum, draw_charts, list_curves
from hyperformer.report.run import Run
from hyperformer.report.scores import BASELINES, average_scores, build_score_table, collect_scores
from hyperformer.report.style import STYLE


def render_page(run: Run) -> str:
    """Render the report as one self-contained HTML page; the same run always gives the same bytes."""
    charts = draw_charts(run)
    sections = {
        "How good are the test scores?": _render_scores(run, charts["scores"]),
        "Was training long enough?": _render_learning(run, charts["learning"]),
        "Which mistakes does it make?": answers.render_mistakes(run, charts["numbers"]),
        "Are its probabilities calibrated?": answers.render_calibration(run, charts["calibration"]),
        "Which tasks have similar embeddings?": _render_similarity(run, charts["embeddings"]),
        "How large is it?": lineage.render_size(run),
        "Do the exported graphs match the model?": lineage.render_parity(run),
        "Which inputs was it created from?": lineage.render_lineage(run),
    }
    title = f"{run.method} on {len(run.tasks)} task{'s' if len(run.tasks) > 1 else ''}"
    return render_document(title, "Results of one run on the test split. Scores are in percent.", sections)


def render_document(title: str, introduction: str, sections: Mapping[str, str]) -> str:
    """Render a self-contained HTML page.

    Args:
        title: The title of the page.
        introduction: The text below the title.
        sections: HTML content by heading.
    """
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
<title>{escape(title)} · HyperFormer report</title>
<link rel="icon" href="data:,">
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p>{escape(introduction)}</p>
<nav aria-label="Questions"><ol>{links}</ol></nav>
</header>
<main>
{body}</main>
</body>
</html>
"""


def _render_scores(run: Run, charts: Mapping[str, Chart]) -> str:
    scores, mean = collect_scores(run), average_scores(run)
    best = max(BASELINES, key=lambda kind: mean[kind])
    behind = [name for name, score in scores.items() if score["model"] <= max(score[kind] for kind in BASELINES)]
    comparison = (
        f"Tasks that do not beat their best baseline: {', '.join(behind)}."
        if behind
        else "Every task beats its baselines."
    )
    return (
        answer(
            f"The mean test score is {mean['model']:.1f} ± {mean['error']:.1f}; the best baseline, "
            f"{BASELINES[best]}, reaches {mean[best]:.1f}. {comparison}"
        )
        + str(charts["tasks"])
        + table(build_score_table(run), "Test split, percent")
        + paragraph(
            "The score of a task with several metrics is their mean. Baselines: the most frequent answer (majority), "
            "and logistic regression on words and word pairs (TF-IDF), on these and the overlap of the two texts "
            "(TF-IDF + overlap), and on embeddings of the frozen backbone (frozen embeddings)."
        )
    )


def _render_learning(run: Run, charts: Mapping[str, Chart]) -> str:
    history = run.history
    if not history:
        return answer("Training recorded no validation scores.")
    last = history[-1]["step"]
    names = list_curves(run)
    best = {name: max(history, key=lambda line: line[name])["step"] for name in names}
    peak = max(line["mean"] for line in history)
    summary = f"The best mean validation score is {peak:.1f}, at step {best['mean']:.0f} of {last:.0f}"
    if best["mean"] == last:
        summary += ", the last step: more steps may help." if len(history) > 1 else "."
    else:
        summary += "; later steps did not improve it."
    rising = [name for name in names[1:] if best[name] == last and len(history) > 1]
    values = Table(
        ["step", *names], [[f"{line['step']:.0f}", *(f"{line[name]:.1f}" for name in names)] for line in history]
    )
    return (
        answer(summary)
        + paragraph(
            f"Validation scores in percent by training step, on one scale from {choose_axis_minimum(run):.0f} to 100; "
            f"a ring marks the best. Tasks that are best at the last step: {', '.join(rising) or 'none'}."
        )
        + grid(map(str, charts.values()))
        + details("Values", table(values, "Validation scores by step, percent"))
    )


def _render_similarity(run: Run, charts: Mapping[str, Chart]) -> str:
    embeddings = run.read_task_embeddings()
    if embeddings is None:
        return answer(f"The method {run.method} has no task embeddings to compare.")
    names, vectors = embeddings
    if len(names) == 1:
        return answer("There is only one task, so there is nothing to compare.")
    cosines = predictions.cosine_similarity(vectors)
    pairs = [(cosines[i, j], names[i], names[j]) for i in range(len(names)) for j in range(i)]
    most, least = max(pairs), min(pairs)
    chance = 1.96 / vectors.shape[1] ** 0.5
    caveat = "" if most[0] > chance else " No pair is more similar than random vectors can be."
    rows = [
        [name, *(f"{value:.2f}" for value in line)] for name, line in zip(names, cosines.round(2) + 0.0, strict=True)
    ]
    return (
        answer(
            f"The most similar tasks are {most[2]} and {most[1]} (cosine {most[0]:.2f}), the least similar are "
            f"{least[2]} and {least[1]} ({least[0]:.2f}).{caveat}"
        )
        + paragraph(
            "The method generates the adapters of each task from its learned embedding. The cosine of 95% of random "
            f"pairs of vectors of this size ({vectors.shape[1]}) is within ±{chance:.2f}: only values outside this "
            "range are meaningful. The map shows the share of the variance that each of its two components explains."
        )
        + str(charts["tasks"])
        + table(Table(["task", *names], rows), "Cosine similarity of task embeddings", abs(cosines).tolist())
    )
