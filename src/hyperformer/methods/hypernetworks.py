"""What both hypernetwork methods are made of (HyperFormer, section 3): projector and generators, all linear layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.config import HyperFormerSettings, ProjectorSettings
from hyperformer.methods.base import INITIAL_STD, Method, adapted, bottleneck, initial_gain
from hyperformer.types import AdapterWeights, HeadWeights, Site


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts at N(0, 0.01), as every one of the authors' hypernetworks does."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer


def projector(inputs: int, settings: ProjectorSettings | None) -> tuple[nn.Module, int]:
    """Embeddings of this size → what the generators read, and its size."""
    if settings is None:
        return nn.Identity(), inputs
    layers = nn.Sequential(
        linear(inputs, settings.hidden_dim), nn.ReLU(), linear(settings.hidden_dim, settings.output_dim)
    )
    return layers, settings.output_dim


class GeneratedHeads(nn.Module):
    """Task embeddings [n, e] → heads of k rows, by one linear layer a kind of weight."""

    def __init__(self, embedding: int, rows: int, width: int) -> None:
        super().__init__()
        self.rows = rows
        self.weight, self.bias = linear(embedding, rows * width), linear(embedding, rows)

    def forward(self, task: Tensor) -> HeadWeights:
        return HeadWeights(self.weight(task).view(len(task), self.rows, -1), self.bias(task))


class HypernetworkMethod(Method):
    """A learned embedding for each task, from which all of a task is written; its head too, unless that is trained."""

    own = (*Method.own, "task_embedding.weight")

    def __init__(
        self,
        settings: HyperFormerSettings,
        tasks: Sequence[str],
        sites: Sequence[Site],
        width: int,
        head_rows: int = 0,
    ) -> None:
        generated = head_rows > 0 and settings.head == "generated"
        super().__init__(settings, tasks, sites, width, 0 if generated else head_rows)
        self.sites = adapted(settings, sites)
        self.task_embedding = nn.Embedding(len(tasks), settings.task_embedding_dim)
        self.generated_heads = GeneratedHeads(settings.task_embedding_dim, head_rows, width) if generated else None

    def head(self, task_ids: Tensor) -> HeadWeights | None:
        if self.generated_heads is None:
            return super().head(task_ids)
        return self.generated_heads(self.task_embedding(task_ids))


class Generators(nn.Module):
    """One linear layer a kind of weight: projected embeddings → the weights of adapters.

    Args:
        settings: the method's: bottleneck and layer norm.
        projected: size p of what is read.
        width: the backbone's width d.
        sites: how many adapters there are.
        adapters: how many are written from one embedding, each by rows of its own.
    """

    def __init__(
        self, settings: HyperFormerSettings, projected: int, width: int, sites: int, adapters: int = 1
    ) -> None:
        super().__init__()
        r, d = bottleneck(settings, width), width
        self.width, self.bottleneck = d, r
        self.down = linear(projected, adapters * r * d)
        self.down_bias = linear(projected, adapters * r)
        self.up = linear(projected, adapters * d * r)
        self.up_bias = linear(projected, adapters * d)
        self.norm: LayerNorms = (
            SharedLayerNorms(sites, d, settings)
            if settings.layer_norm == "unconditional"
            else ConditionalLayerNorms(projected, d, adapters, settings)
        )

    def forward(self, source: Tensor) -> AdapterWeights:
        """The weights of n tasks from embeddings [n, e, p], `adapters` of each: s = e · adapters sites."""
        n, r, d = len(source), self.bottleneck, self.width
        gain, shift = self.norm(source)
        return AdapterWeights(
            down=self.down(source).view(n, -1, r, d),  # [n, s, r, d]
            down_bias=self.down_bias(source).view(n, -1, r),  # [n, s, r]
            up=self.up(source).view(n, -1, d, r),  # [n, s, d, r]
            up_bias=self.up_bias(source).view(n, -1, d),  # [n, s, d]
            gain=gain,
            shift=shift,
        )


class ConditionalLayerNorms(nn.Module):
    """Gains and shifts [n, s, d] of the adapters' layer norms, generated; the gain starts about 0 or 1."""

    def __init__(self, projected: int, width: int, adapters: int, settings: HyperFormerSettings) -> None:
        super().__init__()
        self.width, self.start = width, 1.0 if settings.layer_norm == "conditional_from_one" else 0.0
        self.gain = linear(projected, adapters * width)
        self.shift = linear(projected, adapters * width)
        for layer in (self.gain, self.shift) if settings.adapter_init == "identity" else ():
            nn.init.zeros_(layer.weight)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        gain, shift = (layer(source).view(len(source), -1, self.width) for layer in (self.gain, self.shift))
        return gain + self.start, shift


class SharedLayerNorms(nn.Module):
    """Gains and shifts [n, s, d] of plain layer norms, one a site, which all tasks share."""

    def __init__(self, sites: int, width: int, settings: HyperFormerSettings) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((sites, width), initial_gain(settings)))
        self.shift = nn.Parameter(torch.zeros(sites, width))

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        return self.gain.expand(len(source), -1, -1), self.shift.expand(len(source), -1, -1)


LayerNorms = ConditionalLayerNorms | SharedLayerNorms
