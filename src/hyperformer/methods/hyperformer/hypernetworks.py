"""Modules that both hypernetwork methods share (HyperFormer, section 3): projector, generators and heads.

The generators are linear layers. The projector, if there is one, has two linear layers with a ReLU between them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperformer.core.types import AdapterWeights, HeadWeights, Site
from hyperformer.methods.adapters.sites import compute_bottleneck, select_sites
from hyperformer.methods.base import INITIAL_STD, Method, TrainedHeads, compute_task_share
from hyperformer.methods.hyperformer.settings import HyperFormerSettings, ProjectorSettings
from hyperformer.methods.shared_adapter.modules import SharedAdapter, SharedLayerNorms


def build_linear(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer with weights from N(0, 0.01²) and zero bias, as in the authors' hypernetworks."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer


def build_offset_linear(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer whose output is added to a trained weight: it starts at 0 and has no bias."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
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

    main_kind = "generators"
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

    def parameter_kind(self, name: str) -> str:
        """Return the kind of the innermost module with a kind in `KINDS`; see `Method.parameter_kind`."""
        path = name.split(".")[:-1]
        modules = (self.get_submodule(".".join(path[:end])) for end in range(len(path), 0, -1))
        return next((KINDS[type(module)] for module in modules if type(module) in KINDS), self.main_kind)

    @abstractmethod
    def generator_inputs(self, task_ids: Tensor) -> list[Tensor]:
        """Return the inputs of the generators for the tasks `task_ids` [n]: of each hypernetwork, [n, e, p]."""

    @abstractmethod
    def generate(self, task_ids: Tensor) -> AdapterWeights:
        """Generate adapters of the tasks `task_ids` [n], without the weights of a shared adapter."""

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        """Return the adapters of the tasks `task_ids` [n] at all sites."""
        return self.generate(task_ids)

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Measure by how much the generated adapters of the tasks differ; see `Method.diagnose`.

        Returns:
            `task_share`, for what is generated; and `input_cosine`, the mean cosine between two tasks of the inputs of
            the same generators at the same site.
        """
        task_ids = torch.arange(self.task_embedding.num_embeddings, device=self.task_embedding.weight.device)
        n = len(task_ids)
        if n < 2:
            return {}
        inputs = [F.normalize(source, dim=-1).transpose(0, 1) for source in self.generator_inputs(task_ids)]
        cosines = torch.cat([source @ source.transpose(1, 2) for source in inputs])  # [sites, n, n]
        others = ~torch.eye(n, dtype=torch.bool, device=cosines.device)
        return {
            "task_share": compute_task_share(self.generate(task_ids)),
            "input_cosine": float(cosines[:, others].mean()),
        }


class Generators(nn.Module):
    """One linear layer per kind of weight, from projected embeddings to the weights of adapters.

    Args:
        settings: the method's settings, for the bottleneck r and the layer norm.
        projected: size p of a projected embedding.
        width: the backbone's hidden size d.
        sites: number s of adapter sites.
        adapters: number of adapters that are generated from one embedding, each by separate outputs of the layers.
        offsets: whether the output, apart from the layer norms, is added to the weights of trained adapters.
    """

    def __init__(
        self,
        settings: HyperFormerSettings,
        projected: int,
        width: int,
        sites: int,
        adapters: int = 1,
        offsets: bool = False,
    ) -> None:
        super().__init__()
        r, d = compute_bottleneck(settings, width), width
        self.width, self.bottleneck = d, r
        build = build_offset_linear if offsets else build_linear
        self.down = build(projected, adapters * r * d)
        self.down_bias = build(projected, adapters * r)
        self.up = build(projected, adapters * d * r)
        self.up_bias = build(projected, adapters * d)
        self.norm: LayerNorms = (
            SharedLayerNorms(sites, d, settings)
            if settings.layer_norm == "unconditional"
            else ConditionalLayerNorms(projected, d, sites, adapters, settings)
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
    `identity`, the initial gain and shift are exactly 0. If `layer_norm` is `conditional_offset`, what is generated
    starts at 0 and is added to the gains and shifts that all tasks share.
    """

    def __init__(self, projected: int, width: int, sites: int, adapters: int, settings: HyperFormerSettings) -> None:
        super().__init__()
        self.width, self.base_gain = width, 1.0 if settings.layer_norm == "conditional_from_one" else 0.0
        is_offset = settings.layer_norm == "conditional_offset"
        self.shared = SharedLayerNorms(sites, width, settings) if is_offset else None
        build = build_offset_linear if is_offset else build_linear
        self.gain, self.shift = build(projected, adapters * width), build(projected, adapters * width)
        for layer in (self.gain, self.shift) if settings.adapter_init == "identity" else ():
            nn.init.zeros_(layer.weight)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Generate gains and shifts [n, s, d] from projected embeddings [n, e, p]."""
        gain, shift = (layer(source).view(len(source), -1, self.width) for layer in (self.gain, self.shift))
        if self.shared is None:
            return gain + self.base_gain, shift
        return gain + self.shared.gain, shift + self.shared.shift


LayerNorms = ConditionalLayerNorms | SharedLayerNorms
KINDS: dict[type[nn.Module], str] = {
    ConditionalLayerNorms: "generated_layer_norms",
    GeneratedHeads: "heads",
    SharedAdapter: "adapters",
    SharedLayerNorms: "layer_norms",
    TrainedHeads: "heads",
    nn.Embedding: "embeddings",
    nn.LayerNorm: "projector",
    nn.Sequential: "projector",
}
"""Kind of the parameters of each module."""
