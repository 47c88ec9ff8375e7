"""What both hypernetwork methods are made of (HyperFormer, section 3): projector and generators, all linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from hyperformer.types import AdapterWeights

INITIAL_STD = 0.01


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts at N(0, 0.01), as every one of the authors' hypernetworks does."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer


def projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Embedding → what the generators read."""
    return nn.Sequential(linear(inputs, hidden), nn.ReLU(), linear(hidden, outputs))


class Generators(nn.Module):
    """One linear layer a kind of weight: projected embeddings → the weights of adapters.

    Args:
        projected: size p of what is read.
        width: the backbone's width d.
        bottleneck: the adapters' width r.
        adapters: how many are written from one embedding, each by rows of its own.
    """

    def __init__(self, projected: int, width: int, bottleneck: int, adapters: int = 1) -> None:
        super().__init__()
        self.width, self.bottleneck = width, bottleneck
        self.down = linear(projected, adapters * bottleneck * width)
        self.down_bias = linear(projected, adapters * bottleneck)
        self.up = linear(projected, adapters * width * bottleneck)
        self.up_bias = linear(projected, adapters * width)
        self.gain = linear(projected, adapters * width)
        self.shift = linear(projected, adapters * width)

    def forward(self, source: Tensor) -> AdapterWeights:
        """The weights of n tasks from embeddings [n, e, p], `adapters` of each: s = e · adapters sites."""
        n, r, d = len(source), self.bottleneck, self.width
        return AdapterWeights(
            down=self.down(source).view(n, -1, r, d),  # [n, s, r, d]
            down_bias=self.down_bias(source).view(n, -1, r),  # [n, s, r]
            up=self.up(source).view(n, -1, d, r),  # [n, s, d, r]
            up_bias=self.up_bias(source).view(n, -1, d),  # [n, s, d]
            gain=self.gain(source).view(n, -1, d),  # [n, s, d]
            shift=self.shift(source).view(n, -1, d),  # [n, s, d]
        )
