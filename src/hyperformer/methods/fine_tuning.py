"""Fine-tuning (Karimi Mahabadi et al. 2021, section 4, T5 multi-task): the whole backbone learns every task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hyperformer.config import FineTuningSettings
from hyperformer.methods.base import Method
from hyperformer.types import Site


class FineTuning(Method):
    """No weights of its own."""

    trains_backbone = True

    def __init__(self, settings: FineTuningSettings, tasks: Sequence[str], sites: Sequence[Site], width: int) -> None:
        super().__init__(settings, tasks, sites, width)

    def weights(self, task_ids: Tensor) -> None:
        return None
