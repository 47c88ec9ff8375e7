"""HyperFormer (Karimi Mahabadi et al. 2021, section 3.3): hypernetworks of its own for every block and position."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hyperformer.config import HyperFormerSettings
from hyperformer.methods.hypernetworks import Generators, HypernetworkMethod, projector
from hyperformer.types import AdapterWeights, Site


class HyperFormer(HypernetworkMethod):
    """Learned task embeddings, one projector, and generators for each site, which the tasks share.

    The generators of all sites are one linear layer a kind of weight, so that they are one product.
    """

    def __init__(
        self,
        settings: HyperFormerSettings,
        tasks: Sequence[str],
        sites: Sequence[Site],
        width: int,
        head_rows: int = 0,
    ) -> None:
        super().__init__(settings, tasks, sites, width, head_rows)
        self.projector, projected = projector(settings.task_embedding_dim, settings.projector)
        self.generators = Generators(settings, projected, width, len(self.sites), adapters=len(self.sites))

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        projected = self.projector(self.task_embedding(task_ids))  # [n, p]
        return self.generators(projected.unsqueeze(1))
