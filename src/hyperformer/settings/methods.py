"""Settings of the methods: the blocks of `methods`, and the choice of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, RootModel, SerializeAsAny, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from hyperformer.core.errors import suggest_name
from hyperformer.settings.base import ConfigurationError, SettingsModel
from hyperformer.settings.registry import Registry, collect_errors, raise_errors

METHOD_SETTINGS = Registry("method")
"""The settings class of each method; `hyperformer.methods` registers those of the library."""


class MethodSettings(SettingsModel):
    """Name of a method and its settings."""

    name: str
    settings: SerializeAsAny[SettingsModel]


class Methods(RootModel[dict[str, SerializeAsAny[SettingsModel]]]):
    """Settings of each method, by its name; a run uses the settings of the method that the setting `method` names."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, blocks: Any) -> Any:
        """Validate each block with the settings class of its method; a block that is null is left out."""
        if not isinstance(blocks, Mapping):
            return blocks
        parsed, errors = {}, list[InitErrorDetails]()
        for name, block in blocks.items():
            if name not in METHOD_SETTINGS:
                errors.append(InitErrorDetails(type="extra_forbidden", loc=(str(name),), input=block))
            elif block is not None:
                try:
                    parsed[name] = METHOD_SETTINGS[name].model_validate(block)
                except ValidationError as error:
                    errors += collect_errors(error, name)
        raise_errors("Methods", errors)
        return parsed

    def get_method(self, name: str) -> MethodSettings:
        """Return a method's settings by its name.

        Raises:
            ConfigurationError: There is no such method, or `methods` has no settings for it.
        """
        if name not in self.root:
            raise ConfigurationError(
                f"the setting 'method' is {name!r}, but `methods` has no block of that name; "
                f"{suggest_name(name, self.root)}"
            )
        return MethodSettings(name=name, settings=self.root[name])
