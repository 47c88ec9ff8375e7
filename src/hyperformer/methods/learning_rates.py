"""Learning rates of a method's kinds of parameters, relative to the learning rate of the run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from hyperformer.settings import SettingsModel

Multiplier = Annotated[FiniteFloat, Field(ge=0)]
"""A factor on the learning rate; with 0, parameters keep their initial values."""


class HeadMultipliers(SettingsModel):
    """Factors on the learning rate of a method's kinds of parameters; all other kinds have the factor 1."""

    heads: Multiplier = 1.0
    """Heads on an encoder backbone, trained or generated."""


class AdapterMultipliers(HeadMultipliers):
    """Factors on the learning rate for a method with adapters."""

    layer_norms: Multiplier = 1.0
    """Layer norms that all tasks share: those of the backbone and, if they are not generated, of the adapters."""


class HypernetworkMultipliers(AdapterMultipliers):
    """Factors on the learning rate for a method with hypernetworks; the generators have the factor 1."""

    generated_layer_norms: Multiplier = 1.0
    """Generators of the adapters' layer norms."""
    projector: Multiplier = 1.0
    """The projector, and the layer norm after it."""
    embeddings: Multiplier = 1.0
    """Embeddings of tasks, layers and positions."""


class SharedAdapterMultipliers(HypernetworkMultipliers):
    """Factors on the learning rate for a hypernetwork whose output is added to a shared adapter."""

    shared_adapter: Multiplier = 1.0
    """The adapter that all tasks share, without its layer norm."""
