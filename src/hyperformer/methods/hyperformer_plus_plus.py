"""HyperFormer++ (Karimi Mahabadi et al. 2021, section 3.4): one hypernetwork a stack writes every adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.config import HyperFormerSettings
from hyperformer.methods.base import Method, bottleneck
from hyperformer.methods.hypernetworks import Generators, projector
from hyperformer.types import AdapterWeights, Site

PROJECTED_NORM_EPS = 1e-6
POSITIONS = 2


class StackHypernetwork(nn.Module):
    """The hypernetwork of one stack: [task ; layer ; position] embedding → the weights of the adapter there.

    Args:
        settings: sizes of embeddings and projector.
        layers: blocks of the stack.
        width: the backbone's width d.
        bottleneck: the adapters' width r.
    """

    def __init__(self, settings: HyperFormerSettings, layers: int, width: int, bottleneck: int) -> None:
        super().__init__()
        size, hidden, projected = settings.task_embedding, settings.projector_hidden, settings.projected
        self.layer_embedding = nn.Embedding(layers, size)
        self.position_embedding = nn.Embedding(POSITIONS, size)
        self.projector = projector(3 * size, hidden, projected)
        self.norm = nn.LayerNorm(projected, eps=PROJECTED_NORM_EPS)
        self.generators = Generators(projected, width, bottleneck)

    def forward(self, task: Tensor, layers: Tensor, positions: Tensor) -> AdapterWeights:
        """The weights of n tasks at s sites, in one product a kind of weight.

        Args:
            task: embeddings z [n, e].
            layers, positions: of each site, [s].
        """
        n, s = task.shape[0], layers.shape[0]
        place = torch.cat([self.layer_embedding(layers), self.position_embedding(positions)], dim=-1)  # [s, 2e]
        joint = torch.cat(
            [task.unsqueeze(1).expand(n, s, -1), place.unsqueeze(0).expand(n, s, -1)], dim=-1
        )  # [n, s, 3e]
        source = self.norm(self.projector(joint))  # [n, s, projected]
        return self.generators(source)


class HyperFormerPlusPlus(Method):
    """Learned task embeddings, and one `StackHypernetwork` for the encoder and one for the decoder."""

    def __init__(self, settings: HyperFormerSettings, tasks: Sequence[str], sites: Sequence[Site], width: int) -> None:
        super().__init__(settings, tasks, sites, width)
        self.task_embedding = nn.Embedding(len(tasks), settings.task_embedding)
        self.stacks = nn.ModuleDict()
        for stack in dict.fromkeys(site.stack for site in sites):
            here = [site for site in sites if site.stack == stack]
            layers = 1 + max(site.layer for site in here)
            self.stacks[stack] = StackHypernetwork(settings, layers, width, bottleneck(settings, width))
            self.register_buffer(f"{stack}_layers", torch.tensor([site.layer for site in here]), persistent=False)
            self.register_buffer(f"{stack}_positions", torch.tensor([site.position for site in here]), persistent=False)

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        task = self.task_embedding(task_ids)  # [n, e]
        parts = [
            hypernetwork(task, self.get_buffer(f"{stack}_layers"), self.get_buffer(f"{stack}_positions"))
            for stack, hypernetwork in self.stacks.items()
        ]
        names = AdapterWeights.__dataclass_fields__
        return AdapterWeights(**{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names})
