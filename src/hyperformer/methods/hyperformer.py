"""HyperFormer++ (Karimi Mahabadi et al. 2021, section 3.4): one hypernetwork a stack writes every adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.config import MethodSettings
from hyperformer.methods.base import Method
from hyperformer.types import AdapterWeights, HyperFormerError, Site

INITIAL_STD = 0.01
PROJECTED_NORM_EPS = 1e-6
POSITIONS = 2


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer


class StackHypernetwork(nn.Module):
    """The hypernetwork of one stack: [task ; layer ; position] embedding → the weights of the adapter there.

    Args:
        settings: sizes of embeddings and projector.
        layers: blocks of the stack.
        width: the backbone's width d.
        bottleneck: the adapters' width r.
    """

    def __init__(self, settings: MethodSettings, layers: int, width: int, bottleneck: int) -> None:
        super().__init__()
        self.width, self.bottleneck = width, bottleneck
        size, hidden, projected = settings.task_embedding, settings.projector_hidden, settings.projected
        self.layer_embedding = nn.Embedding(layers, size)
        self.position_embedding = nn.Embedding(POSITIONS, size)
        self.projector = nn.Sequential(_linear(3 * size, hidden), nn.ReLU(), _linear(hidden, projected))
        self.norm = nn.LayerNorm(projected, eps=PROJECTED_NORM_EPS)
        self.down = _linear(projected, bottleneck * width)
        self.down_bias = _linear(projected, bottleneck)
        self.up = _linear(projected, width * bottleneck)
        self.up_bias = _linear(projected, width)
        self.gain = _linear(projected, width)
        self.shift = _linear(projected, width)

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
        return AdapterWeights(
            down=self.down(source).view(n, s, self.bottleneck, self.width),
            down_bias=self.down_bias(source),
            up=self.up(source).view(n, s, self.width, self.bottleneck),
            up_bias=self.up_bias(source),
            gain=self.gain(source),
            shift=self.shift(source),
        )


class HyperFormerPlusPlus(Method):
    """Learned task embeddings, and one `StackHypernetwork` for the encoder and one for the decoder.

    Raises:
        HyperFormerError: the reduction factor leaves no whole bottleneck.
    """

    def __init__(self, settings: MethodSettings, tasks: Sequence[str], sites: Sequence[Site], width: int) -> None:
        super().__init__(settings, tasks, sites, width)
        bottleneck, rest = divmod(width, settings.reduction_factor)
        if rest or not bottleneck:
            raise HyperFormerError(
                f"method.reduction_factor is {settings.reduction_factor}, expected a divisor of the backbone's width "
                f"{width}"
            )
        self.task_embedding = nn.Embedding(len(tasks), settings.task_embedding)
        self.stacks = nn.ModuleDict()
        for stack in dict.fromkeys(site.stack for site in sites):
            here = [site for site in sites if site.stack == stack]
            layers = 1 + max(site.layer for site in here)
            self.stacks[stack] = StackHypernetwork(settings, layers, width, bottleneck)
            self.register_buffer(f"{stack}_layers", torch.tensor([site.layer for site in here]), persistent=False)
            self.register_buffer(f"{stack}_positions", torch.tensor([site.position for site in here]), persistent=False)

    def groups(self, tasks: Sequence[str]) -> list[list[str]]:
        return [list(tasks)]

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        task = self.task_embedding(task_ids)  # [n, e]
        parts = [
            hypernetwork(task, self.get_buffer(f"{stack}_layers"), self.get_buffer(f"{stack}_positions"))
            for stack, hypernetwork in self.stacks.items()
        ]
        names = AdapterWeights.__dataclass_fields__
        return AdapterWeights(**{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names})

    def trained_names(self) -> list[str]:
        return [name for name, _ in self.named_parameters()]
