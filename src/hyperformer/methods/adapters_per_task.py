"""Adapters (Karimi Mahabadi et al. 2021, section 4): a separate model with adapters and layer norms for each task."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.methods.adapters_multi_task import AdaptersMultiTask
from hyperformer.methods.base import separate_tasks


class AdaptersPerTask(AdaptersMultiTask):
    """The adapters of `AdaptersMultiTask`, in a separate model for each task."""

    @staticmethod
    def group_tasks(tasks: Sequence[str]) -> list[list[str]]:
        """Return one group per task."""
        return separate_tasks(tasks)
