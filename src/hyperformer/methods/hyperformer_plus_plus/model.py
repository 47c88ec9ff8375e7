"""HyperFormer++ (Karimi Mahabadi et al. 2021, section 3.4): one hypernetwork per stack generates all its adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from hyperformer.core.types import AdapterWeights, Site
from hyperformer.methods.hyperformer.hypernetworks import Generators, HypernetworkMethod, build_projector
from hyperformer.methods.hyperformer_plus_plus.settings import HyperFormerPlusPlusSettings
from hyperformer.methods.shared_adapter.modules import SharedAdapter

PROJECTED_NORM_EPS = 1e-6


class StackHypernetwork(nn.Module):
    """The hypernetwork of one stack: (D, U, …) = W · LN(projector([z_task; z_layer; z_position])) + b.

    If `share_layers` is false, there is no layer embedding, and every layer has separate generators. If `embeddings` is
    `product`, the projector's input is the element-wise product of the embeddings. If `shared_adapter` is true, b is 0
    and W starts at 0, apart from the generators of layer norms.

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
        self.concatenate = settings.embeddings == "concatenated"
        count = (3 if settings.share_layers else 2) if self.concatenate else 1
        self.projector, projected = build_projector(size * count, settings.projector)
        self.norm = nn.LayerNorm(projected, eps=PROJECTED_NORM_EPS)
        adapters = 1 if settings.share_layers else len(layers)
        self.generators = Generators(settings, projected, width, len(sites), adapters, settings.shared_adapter)
        self.register_buffer("layers", layer, persistent=False)
        self.register_buffer("positions", position, persistent=False)
        # the index of each site in the output of per-layer generators, which is ordered by position, then layer
        self.register_buffer("places", position * len(layers) + layer, persistent=False)

    def embed(self, task: Tensor) -> Tensor:
        """Return the generators' inputs for n tasks, [n, s, p]; with separate generators, [n, positions, p].

        Args:
            task: task embeddings z [n, e].
        """
        if self.layer_embedding is None:
            site = [self.position_embedding.weight]  # [positions, e]
        else:
            site = [
                self.layer_embedding(self.get_buffer("layers")),  # [s, e]
                self.position_embedding(self.get_buffer("positions")),  # [s, e]
            ]
        shape = (len(task), len(site[0]), -1)
        embeddings = [task.unsqueeze(1).expand(shape), *(embedding.expand(shape) for embedding in site)]
        joint = torch.cat(embeddings, dim=-1) if self.concatenate else reduce(torch.mul, embeddings)
        inputs: Tensor = self.norm(self.projector(joint))
        return inputs

    def forward(self, task: Tensor) -> AdapterWeights:
        """Generate the weights of n tasks at the stack's s sites, with one matrix product per kind of weight.

        Args:
            task: task embeddings z [n, e].
        """
        generated: AdapterWeights = self.generators(self.embed(task))
        if self.layer_embedding is not None:
            return generated
        order = self.get_buffer("places")
        return AdapterWeights(**{name: tensor.index_select(1, order) for name, tensor in vars(generated).items()})


class HyperFormerPlusPlus(HypernetworkMethod):
    """Learned task embeddings, and one `StackHypernetwork` for each stack that has adapters.

    If `shared_adapter` is true, the generated weights are added to those of an adapter that all tasks share.
    """

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
        self.offset_kinds = {
            "generators",
            *(["generated_layer_norms"] if settings.layer_norm == "conditional_offset" else []),
        }
        self.shared_adapter = SharedAdapter(len(self.sites), width, settings) if settings.shared_adapter else None
        if settings.embeddings == "product":
            for module in self.modules():
                if isinstance(module, nn.Embedding):
                    module.weight.data.bernoulli_(0.5).mul_(2).sub_(1)

    def generator_inputs(self, task_ids: Tensor) -> list[Tensor]:
        """Return the inputs of each stack's generators for the tasks `task_ids` [n]; see `StackHypernetwork.embed`."""
        task = self.task_embedding(task_ids)  # [n, e]
        return [cast(StackHypernetwork, hypernetwork).embed(task) for hypernetwork in self.stacks.values()]

    def generate(self, task_ids: Tensor) -> AdapterWeights:
        """Generate the weights of the tasks `task_ids` [n] at all sites, without those of a shared adapter."""
        task = self.task_embedding(task_ids)  # [n, e]
        generated = [hypernetwork(task) for hypernetwork in self.stacks.values()]
        names = AdapterWeights.__dataclass_fields__
        return AdapterWeights(**{name: torch.cat([getattr(g, name) for g in generated], dim=1) for name in names})

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        """Return the adapters of the tasks `task_ids` [n] at all sites."""
        weights = self.generate(task_ids)
        if self.shared_adapter is None:
            return weights
        sums = {name: getattr(weights, name) + p for name, p in self.shared_adapter.named_parameters()}
        return replace(weights, **sums)

    def offset_names(self) -> list[str]:
        """Return the names of the generators whose output is added to shared weights; see `Method.offset_names`."""
        if self.shared_adapter is None:
            return []
        names = (name for name, _ in self.named_parameters())
        return [name for name in names if self.parameter_kind(name) in self.offset_kinds]

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Measure by how much the generated adapters of the tasks differ; see `HypernetworkMethod.diagnose`.

        Returns:
            With a shared adapter also `offset_ratio`: the norm of the generated projections `down` and `up`, divided by
            the norm of those of the shared adapter, as a root mean square over tasks.
        """
        measures = super().diagnose()
        if self.shared_adapter is None or not measures:
            return measures
        count, device = self.task_embedding.num_embeddings, self.shared_adapter.up.device
        generated = self.generate(torch.arange(count, device=device))
        offsets, shared = (
            sum(float(tensor.square().sum()) for tensor in (weights.down, weights.up))
            for weights in (generated, self.shared_adapter)
        )
        return {**measures, "offset_ratio": (offsets / count / shared) ** 0.5}
