"""The HTML page of a run: each section answers one question with a sentence, charts and tables."""

from __future__ import annotations

from hyperformer.report.charts import draw_charts
from hyperformer.report.html import render_document
from hyperformer.report.results import build_parameter_table, build_score_table, list_behind, list_notes
from hyperformer.report.statistics import BINS, PERCENTILES
from hyperformer.report.summary import BASELINES, Summary

MAX_CONFUSIONS = 15
"""Maximum number of confused label pairs that are listed for a task with many labels."""
MAX_CHARACTERS = 300
"""Maximum number of characters that are shown of a text."""


SECTIONS = {
    "How good are the test scores?": "scores.html.jinja",
    "Was training long enough?": "learning.html.jinja",
    "Do the tasks have different adapters?": "diagnostics.html.jinja",
    "Which mistakes does it make?": "mistakes.html.jinja",
    "Are its probabilities calibrated?": "calibration.html.jinja",
    "Which tasks have similar embeddings?": "similarity.html.jinja",
    "How large is it?": "size.html.jinja",
    "Do the exported graphs match the model?": "parity.html.jinja",
    "Which inputs was it created from?": "lineage.html.jinja",
}
"""Template of the section that answers each question."""


def render_page(summary: Summary) -> str:
    """Render the report as one self-contained HTML page; the same run always gives the same bytes."""
    count = len(summary.scores)
    return render_document(
        f"{summary.method} on {count} task{'s' if count > 1 else ''}",
        "Results of one run on the test split. Scores are in percent.",
        SECTIONS,
        summary=summary,
        charts=draw_charts(summary),
        score_table=build_score_table(summary),
        parameter_table=build_parameter_table(summary),
        baselines=BASELINES,
        behind=list_behind(summary),
        notes=list_notes(summary),
        bins=BINS,
        percentiles=[f"{percentile}th percentile" for percentile in PERCENTILES],
        max_confusions=MAX_CONFUSIONS,
        max_characters=MAX_CHARACTERS,
    )
