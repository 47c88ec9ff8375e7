"""Base class and field types of all settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from hyperformer.core.errors import HyperFormerError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class ConfigurationError(HyperFormerError):
    """An invalid setting."""


class SettingsModel(BaseModel):
    """A block of settings: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
