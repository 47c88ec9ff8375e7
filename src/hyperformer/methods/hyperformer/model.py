"""HyperFormer (Karimi Mahabadi et al. 2021, section 3.3): separate hypernetworks for every block and position."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hyperformer.core.types import AdapterWeights, Site
from hyperformer.methods.hyperformer.hypernetworks import Generators, HypernetworkMethod, build_projector
from hyperformer.methods.hyperformer.settings import HyperFormerSettings


class HyperFormer(HypernetworkMethod):
    """Adapters generated from task embeddings: for site i, (D, U, …)_i = W_i · projector(z_task) + b_i.

    The projector is shared by all sites, the generators W_i by all tasks. The generators of all sites are stacked in
    one linear layer per kind of weight, so that one matrix product generates all weights of a kind.
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
        self.projector, projected = build_projector(settings.task_embedding_dim, settings.projector)
        self.generators = Generators(settings, projected, width, len(self.sites), adapters=len(self.sites))

    def generator_inputs(self, task_ids: Tensor) -> list[Tensor]:
        """Return the projected embeddings of the tasks `task_ids` [n], in a list, [n, 1, p]."""
        return [self.projector(self.task_embedding(task_ids)).unsqueeze(1)]

    def generate(self, task_ids: Tensor) -> AdapterWeights:
        """Generate the adapters of the tasks `task_ids` [n] at all sites."""
        (projected,) = self.generator_inputs(task_ids)
        return self.generators(projected)
