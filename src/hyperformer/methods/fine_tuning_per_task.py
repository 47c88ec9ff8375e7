"""T5 per task (Karimi Mahabadi et al. 2021, section 4): for each task a backbone that learns it alone."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.methods.base import one_each
from hyperformer.methods.fine_tuning_multi_task import FineTuningMultiTask


class FineTuningPerTask(FineTuningMultiTask):
    """The same training, for one task alone."""

    @staticmethod
    def groups(tasks: Sequence[str]) -> list[list[str]]:
        return one_each(tasks)
