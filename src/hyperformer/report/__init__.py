"""The report of a run: its results as a table in Markdown, and all that there is to ask of it as one page."""

from __future__ import annotations

from hyperformer.report.document import page
from hyperformer.report.run import Run
from hyperformer.report.scores import tables

__all__ = ["Run", "page", "tables"]
