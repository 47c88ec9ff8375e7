"""Learning rates of a method's kinds of parameters, relative to the learning rate of the run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from hyperformer.settings import SettingsModel

Multiplier = Annotated[FiniteFloat, Field(ge=0)]
"""A factor on the learning rate; with 0, parameters keep their initial values."""


class FineTuningMultipliers(SettingsModel):
    """Factors on the learning rate of fine-tuning, by kind of parameter."""

    backbone: Multiplier = 1.0
    """The whole backbone."""
    heads: Multiplier = 1.0
    """Heads on an encoder backbone."""


class AdapterMultipliers(SettingsModel):
    """Factors on the learning rate of a method with adapters, by kind of parameter."""

    adapters: Multiplier = 1.0
    """Adapters that are trained directly, such as the shared adapter of HyperFormer++, without their layer norms."""
    heads: Multiplier = 1.0
    """Heads on an encoder backbone, trained or generated."""
    layer_norms: Multiplier = 1.0
    """Layer norms that all tasks share: those of the backbone and, if they are not generated, of the adapters."""


class HypernetworkMultipliers(AdapterMultipliers):
    """Factors on the learning rate of a method with hypernetworks, by kind of parameter."""

    generators: Multiplier = 1.0
    """Generators of the adapters, apart from their layer norms."""
    generated_layer_norms: Multiplier = 1.0
    """Generators of the adapters' layer norms."""
    projector: Multiplier = 1.0
    """The projector, and the layer norm after it."""
    embeddings: Multiplier = 1.0
    """Embeddings of tasks, layers and positions."""
