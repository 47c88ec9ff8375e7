"""A single adapter at each site for all tasks: the baseline that task-specific weights must beat."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hyperformer.core.types import AdapterWeights, Site
from hyperformer.methods.adapters.settings import AdapterSettings
from hyperformer.methods.adapters.sites import select_sites
from hyperformer.methods.base import Method
from hyperformer.methods.shared_adapter.modules import SharedAdapter, SharedLayerNorms


class SharedAdapterMethod(Method):
    """Adapters (Houlsby et al. 2019) whose weights are the same for all tasks; on an encoder, each task has a head."""

    def __init__(
        self, settings: AdapterSettings, tasks: Sequence[str], sites: Sequence[Site], width: int, head_rows: int = 0
    ) -> None:
        super().__init__(settings, tasks, sites, width, head_rows)
        self.sites, self.activation = select_sites(settings, sites), settings.activation
        self.adapter = SharedAdapter(len(self.sites), width, settings)
        self.norm = SharedLayerNorms(len(self.sites), width, settings)

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        """Return the adapters of the tasks `task_ids` [n] at all sites."""
        gain, shift = self.norm(task_ids)
        weights = {name: p.expand(len(task_ids), *p.shape) for name, p in self.adapter.named_parameters()}
        return AdapterWeights(**weights, gain=gain, shift=shift)

    def parameter_kind(self, name: str) -> str:
        """Return `layer_norms` for the layer norms of the adapters; see `Method.parameter_kind`."""
        return "layer_norms" if name.startswith("norm.") else super().parameter_kind(name)
