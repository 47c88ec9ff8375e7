"""Reports of a run: a Markdown table of results, an HTML page and its charts as SVG files."""

from __future__ import annotations

from hyperformer.report.charts import write_charts
from hyperformer.report.page import render_page
from hyperformer.report.results import list_behind, render_results
from hyperformer.report.run import Run
from hyperformer.report.summary import Summary, summarize

__all__ = ["Run", "Summary", "list_behind", "render_page", "render_results", "summarize", "write_charts"]
