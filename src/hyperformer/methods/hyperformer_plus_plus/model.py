"""HyperFormer++ (Karimi Mahabadi et al. 2021, section 3.4): one hypernetwork per stack generates all its adapters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.core.types import AdapterWeights, Site
from hyperformer.methods.hyperformer.hypernetworks import Generators, HypernetworkMethod, build_projector
from hyperformer.methods.hyperformer_plus_plus.settings import HyperFormerPlusPlusSettings

PROJECTED_NORM_EPS = 1e-6


class StackHypernetwork(nn.Module):
    """The hypernetwork of one stack: (D, U, …) = W · LN(projector([z_task; z_layer; z_position])) + b.

    If `share_layers` is false, there is no layer embedding, and every layer has separate generators.

    Args:
        settings: the method's settings.
        sites: the sites of the stack that have an adapter.
        width: the backbone's hidden size d.
    """

    def __init__(self, settings: HyperFormerPlusPlusSettings, sites: Sequence[Site], width: int) -> None:
        super().__init__()
        size = settings.task_embedding_dim
        layers, positions = (sorted({getattr(site, kind) for site in sites}) for kind in ("layer", "position"))
        layer = torch.tensor([layers.index(site.layer) for site in sites])
        position = torch.tensor([positions.index(site.position) for site in sites])
        self.layer_embedding = nn.Embedding(len(layers), size) if settings.share_layers else None
        self.position_embedding = nn.Embedding(len(positions), size)
        self.projector, projected = build_projector(size * (3 if settings.share_layers else 2), settings.projector)
        self.norm = nn.LayerNorm(projected, eps=PROJECTED_NORM_EPS)
        adapters = 1 if settings.share_layers else len(layers)
        self.generators = Generators(settings, projected, width, len(sites), adapters=adapters)
        self.register_buffer("layers", layer, persistent=False)
        self.register_buffer("positions", position, persistent=False)
        # the index of each site in the output of per-layer generators, which is ordered by position, then layer
        self.register_buffer("places", position * len(layers) + layer, persistent=False)

    def forward(self, task: Tensor) -> AdapterWeights:
        """Generate the weights of n tasks at the stack's s sites, with one matrix product per kind of weight.

        Args:
            task: task embeddings z [n, e].
        """
        if self.layer_embedding is None:
            site = self.position_embedding.weight  # [positions, e]
        else:
            embeddings = (
                self.layer_embedding(self.get_buffer("layers")),
                self.position_embedding(self.get_buffer("positions")),
            )
            site = torch.cat(embeddings, dim=-1)  # [s, 2e]
        n, s = len(task), len(site)
        joint = torch.cat([task.unsqueeze(1).expand(n, s, -1), site.unsqueeze(0).expand(n, s, -1)], dim=-1)
        generated = self.generators(self.norm(self.projector(joint)))
        if self.layer_embedding is not None:
            return generated
        order = self.get_buffer("places")
        return AdapterWeights(**{name: tensor.index_select(1, order) for name, tensor in vars(generated).items()})


class HyperFormerPlusPlus(HypernetworkMethod):
    """Learned task embeddings, and one `StackHypernetwork` for each stack that has adapters."""

    def __init__(
        self,
        settings: HyperFormerPlusPlusSettings,
        tasks: Sequence[str],
        sites: Sequence[Site],
        width: int,
        head_rows: int = 0,
    ) -> None:
        super().__init__(settings, tasks, sites, width, head_rows)
        self.stacks = nn.ModuleDict()
        for stack in dict.fromkeys(site.stack for site in self.sites):
            stack_sites = [site for site in self.sites if site.stack == stack]
            self.stacks[stack] = StackHypernetwork(settings, stack_sites, width)

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        """Generate the adapters of the tasks `task_ids` [n] at all sites."""
        task = self.task_embedding(task_ids)  # [n, e]
        generated = [hypernetwork(task) for hypernetwork in self.stacks.values()]
        names = AdapterWeights.__dataclass_fields__
        return AdapterWeights(**{name: torch.cat([getattr(g, name) for g in generated], dim=1) for name in names})
