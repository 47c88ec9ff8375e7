"""The report of a run: its results as a table in Markdown, all there is to ask of it as one page, its pictures."""

from __future__ import annotations

from hyperformer.report.document import page
from hyperformer.report.pictures import write as write_pictures
from hyperformer.report.run import Run
from hyperformer.report.scores import tables

__all__ = ["Run", "page", "tables", "write_pictures"]
