"""Reports of a run: a Markdown table of results, an HTML page and its charts as SVG files."""

from __future__ import annotations

from hyperformer.report.document import render_page
from hyperformer.report.pictures import write_charts
from hyperformer.report.run import Run
from hyperformer.report.scores import render_results

__all__ = ["Run", "render_page", "render_results", "write_charts"]
