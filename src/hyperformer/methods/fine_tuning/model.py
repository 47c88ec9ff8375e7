"""Fine-tuning of the whole backbone (T5 in Karimi Mahabadi et al. 2021, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hyperformer.core.types import Site
from hyperformer.methods.base import Method
from hyperformer.methods.fine_tuning.settings import FineTuningSettings


class FineTuning(Method):
    """Fine-tuning of the whole backbone, without adapters; with heads if the backbone needs them."""

    main_kind = "backbone"
    trains_backbone = True

    def __init__(
        self, settings: FineTuningSettings, tasks: Sequence[str], sites: Sequence[Site], width: int, head_rows: int = 0
    ) -> None:
        super().__init__(settings, tasks, sites, width, head_rows)
        self.sites = []

    def weights(self, task_ids: Tensor) -> None:
        """Return None: there are no adapters."""
        return None
