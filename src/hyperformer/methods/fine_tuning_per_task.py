"""T5 per task (Karimi Mahabadi et al. 2021, section 4): a separately fine-tuned backbone for each task."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.methods.base import separate_tasks
from hyperformer.methods.fine_tuning_multi_task import FineTuningMultiTask


class FineTuningPerTask(FineTuningMultiTask):
    """The fine-tuning of `FineTuningMultiTask`, in a separate model for each task."""

    @staticmethod
    def group_tasks(tasks: Sequence[str]) -> list[list[str]]:
        """Return one group per task."""
        return separate_tasks(tasks)
