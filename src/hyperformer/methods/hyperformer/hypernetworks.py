"""Modules that both hypernetwork methods share (HyperFormer, section 3): projector, generators and heads.

The generators are linear layers. The projector, if there is one, has two linear layers with a ReLU between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.core.types import AdapterWeights, HeadWeights, Site
from hyperformer.methods.adapters.sites import compute_bottleneck, get_initial_gain, select_sites
from hyperformer.methods.base import INITIAL_STD, Method
from hyperformer.methods.hyperformer.settings import HyperFormerSettings, ProjectorSettings


def build_linear(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer with weights from N(0, 0.01²) and zero bias, as in the authors' hypernetworks."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer


def build_projector(inputs: int, settings: ProjectorSettings | None) -> tuple[nn.Module, int]:
    """Build the projector, which maps embeddings of size `inputs` to the generators' input.

    Returns:
        The projector and its output size p. If `settings` is None, the projector is the identity.
    """
    if settings is None:
        return nn.Identity(), inputs
    layers = nn.Sequential(
        build_linear(inputs, settings.hidden_dim), nn.ReLU(), build_linear(settings.hidden_dim, settings.output_dim)
    )
    return layers, settings.output_dim


class GeneratedHeads(nn.Module):
    """Heads with k outputs, generated from task embeddings [n, e] by one linear layer per kind of weight."""

    def __init__(self, embedding: int, rows: int, width: int) -> None:
        super().__init__()
        self.rows = rows
        self.weight, self.bias = build_linear(embedding, rows * width), build_linear(embedding, rows)

    def forward(self, task: Tensor) -> HeadWeights:
        """Generate the heads of n tasks: weight [n, k, d], bias [n, k]."""
        return HeadWeights(self.weight(task).view(len(task), self.rows, -1), self.bias(task))


class HypernetworkMethod(Method):
    """Base class of methods that generate a task's adapters, and optionally its head, from a learned task embedding."""

    task_specific = (*Method.task_specific, "task_embedding.weight")

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
        self.sites, self.activation = select_sites(settings, sites), settings.activation
        self.task_embedding = nn.Embedding(len(tasks), settings.task_embedding_dim)
        self.generated_heads = GeneratedHeads(settings.task_embedding_dim, head_rows, width) if generated else None

    def head(self, task_ids: Tensor) -> HeadWeights | None:
        """Return the heads of the tasks `task_ids` [n]; None if the backbone needs no heads."""
        if self.generated_heads is None:
            return super().head(task_ids)
        return self.generated_heads(self.task_embedding(task_ids))


class Generators(nn.Module):
    """One linear layer per kind of weight, from projected embeddings to the weights of adapters.

    Args:
        settings: the method's settings, for the bottleneck r and the layer norm.
        projected: size p of a projected embedding.
        width: the backbone's hidden size d.
        sites: number s of adapter sites.
        adapters: number of adapters that are generated from one embedding, each by separate outputs of the layers.
    """

    def __init__(
        self, settings: HyperFormerSettings, projected: int, width: int, sites: int, adapters: int = 1
    ) -> None:
        super().__init__()
        r, d = compute_bottleneck(settings, width), width
        self.width, self.bottleneck = d, r
        self.down = build_linear(projected, adapters * r * d)
        self.down_bias = build_linear(projected, adapters * r)
        self.up = build_linear(projected, adapters * d * r)
        self.up_bias = build_linear(projected, adapters * d)
        self.norm: LayerNorms = (
            SharedLayerNorms(sites, d, settings)
            if settings.layer_norm == "unconditional"
            else ConditionalLayerNorms(projected, d, adapters, settings)
        )

    def forward(self, source: Tensor) -> AdapterWeights:
        """Generate the weights of n tasks at s sites; s is e times the argument `adapters` of the class.

        Args:
            source: projected embeddings, e of them for each task, [n, e, p].
        """
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
    """Generated gains and shifts [n, s, d] of the adapters' layer norms.

    The initial gain is near 1 if `layer_norm` is `conditional_from_one`, otherwise near 0. If `adapter_init` is
    `identity`, the initial gain and shift are exactly 0.
    """

    def __init__(self, projected: int, width: int, adapters: int, settings: HyperFormerSettings) -> None:
        super().__init__()
        self.width, self.base_gain = width, 1.0 if settings.layer_norm == "conditional_from_one" else 0.0
        self.gain = build_linear(projected, adapters * width)
        self.shift = build_linear(projected, adapters * width)
        for layer in (self.gain, self.shift) if settings.adapter_init == "identity" else ():
            nn.init.zeros_(layer.weight)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Generate gains and shifts [n, s, d] from projected embeddings [n, e, p]."""
        gain, shift = (layer(source).view(len(source), -1, self.width) for layer in (self.gain, self.shift))
        return gain + self.base_gain, shift


class SharedLayerNorms(nn.Module):
    """Trained gains and shifts [s, d] of ordinary layer norms, one per site, which all tasks share."""

    def __init__(self, sites: int, width: int, settings: HyperFormerSettings) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((sites, width), get_initial_gain(settings)))
        self.shift = nn.Parameter(torch.zeros(sites, width))

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return gains and shifts [n, s, d], the same for each of the n tasks of `source`."""
        return self.gain.expand(len(source), -1, -1), self.shift.expand(len(source), -1, -1)


LayerNorms = ConditionalLayerNorms | SharedLayerNorms
