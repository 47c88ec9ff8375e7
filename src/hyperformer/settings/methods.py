"""Settings of the methods."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    SerializeAsAny,
    model_validator,
)

from hyperformer.core.errors import suggest_name
from hyperformer.settings.base import ConfigurationError, Positive, SettingsModel


class FineTuningSettings(SettingsModel):
    """Settings of full fine-tuning of the backbone: an empty block, because there is nothing to set."""


class AdapterSettings(SettingsModel):
    """Settings of all methods with adapters."""

    reduction_factor: Positive
    """The adapters' bottleneck dimension is the backbone's hidden size divided by this factor."""
    activation: Literal["gelu_new", "gelu", "relu", "silu", "tanh"] = "gelu_new"
    """Activation function of the adapters."""
    positions: Literal["both", "feed_forward", "self_attention"] = "both"
    """Sublayers of each block after which adapters are inserted."""
    stacks: Literal["both", "encoder", "decoder"] = "both"
    """Stacks whose blocks have adapters."""
    adapter_init: Literal["paper", "identity"] = "paper"
    """Initial effect of the adapters. `paper`: a small random change, as in the authors' code. `identity`: no change,
    because gain and shift of the adapters' layer norms start at 0. Use `identity` for backbones whose sublayers have
    small outputs, such as BERT: the layer norm of `paper` amplifies the random change until it dominates these outputs.
    """


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
    layer_norm: Literal["conditional", "conditional_from_one", "unconditional"] = "conditional"
    """Layer norm of the adapters. `conditional`: gain and shift are generated, and the gain starts near 0, as in the
    authors' code; `conditional_from_one`: the generated gain starts near 1; `unconditional`: one trained layer norm per
    adapter site, shared by all tasks.
    """

    @model_validator(mode="after")
    def _check_identity(self) -> HyperFormerSettings:
        if self.adapter_init == "identity" and self.layer_norm == "conditional_from_one":
            raise ValueError(
                "adapter_init: identity requires gains that start at 0, but layer_norm is conditional_from_one; use "
                "layer_norm: conditional"
            )
        return self


class HyperFormerPlusPlusSettings(HyperFormerSettings):
    """Settings of HyperFormer++, which has one hypernetwork per stack."""

    share_layers: bool = True
    """Use the same generators for all layers of a stack, conditioned on layer embeddings. false: separate generators
    for each layer, without layer embeddings.
    """


class MethodSettings(SettingsModel):
    """Name of a method and its settings."""

    name: str
    settings: SerializeAsAny[AdapterSettings | FineTuningSettings]


class Methods(SettingsModel):
    """Settings of each method, by its name; a run uses the settings of the method that the setting `method` names."""

    hyperformer_plus_plus: HyperFormerPlusPlusSettings | None = None
    hyperformer: HyperFormerSettings | None = None
    adapters_multi_task: AdapterSettings | None = None
    adapters_per_task: AdapterSettings | None = None
    fine_tuning_multi_task: FineTuningSettings | None = None
    fine_tuning_per_task: FineTuningSettings | None = None

    def get_method(self, name: str) -> MethodSettings:
        """Return a method's settings by its name.

        Raises:
            ConfigurationError: There is no such method, or `methods` has no settings for it.
        """
        settings = getattr(self, name, None) if name in type(self).model_fields else None
        if settings is None:
            present = [known for known in type(self).model_fields if getattr(self, known) is not None]
            raise ConfigurationError(
                f"the setting 'method' is {name!r}, but `methods` has no block of that name; "
                f"{suggest_name(name, present)}"
            )
        return MethodSettings(name=name, settings=settings)
