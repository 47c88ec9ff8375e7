"""Settings of HyperFormer."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from hyperformer.methods.adapters.settings import AdapterSettings
from hyperformer.methods.learning_rates import HypernetworkMultipliers
from hyperformer.settings import SettingsModel
from hyperformer.settings.base import Positive


class ProjectorSettings(SettingsModel):
    """Sizes of the two-layer MLP between the embeddings and the generators."""

    hidden_dim: Positive
    output_dim: Positive


class HyperFormerSettings(AdapterSettings):
    """Settings of HyperFormer, which has a separate hypernetwork for each block and position."""

    head: Literal["generated", "trained"] = "generated"
    """Weights of each task's head on an encoder backbone. `generated`: generated from the task embedding; `trained`:
    trained directly, separately for each task. Without effect on a seq2seq backbone.
    """

    task_embedding_dim: Positive
    """Size of the task embeddings and, in HyperFormer++, of the layer and position embeddings."""
    projector: ProjectorSettings | None
    """Projector of the embeddings; null: the embeddings are the generators' input."""
    layer_norm: Literal["conditional", "conditional_from_one", "conditional_offset", "unconditional"] = "conditional"
    """Layer norm of the adapters. `conditional`: gain and shift are generated, and the gain starts near 0, as in the
    authors' code; `conditional_from_one`: the generated gain starts near 1; `unconditional`: one trained layer norm per
    adapter site, shared by all tasks; `conditional_offset`: generated gain and shift, which start at 0, are added to
    those of the shared layer norm.
    """
    learning_rate_multipliers: HypernetworkMultipliers = HypernetworkMultipliers()
    """Factors on the learning rate by kind of parameter."""

    @model_validator(mode="after")
    def _check_identity(self) -> HyperFormerSettings:
        if self.adapter_init == "identity" and self.layer_norm == "conditional_from_one":
            raise ValueError(
                "adapter_init: identity requires gains that start at 0, but layer_norm is conditional_from_one; use "
                "layer_norm: conditional"
            )
        return self
