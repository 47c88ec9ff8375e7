"""Adapters (Karimi Mahabadi et al. 2021, section 4): for each task a model with adapters and layer norms of its own."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.methods.adapters_multi_task import AdaptersMultiTask
from hyperformer.methods.base import one_each


class AdaptersPerTask(AdaptersMultiTask):
    """The same adapters, trained for one task alone."""

    @staticmethod
    def groups(tasks: Sequence[str]) -> list[list[str]]:
        return one_each(tasks)
