"""Settings classes that extensions register by name, and the validation of blocks that name their class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from hyperformer.settings.base import SettingsModel


class Registry(Mapping[str, type[SettingsModel]]):
    """Settings classes by name, in the order of their registration.

    Args:
        entry: a word for what is registered, for error messages.
    """

    def __init__(self, entry: str) -> None:
        self._entry, self._classes = entry, dict[str, type[SettingsModel]]()

    def register(self, name: str, settings: type[SettingsModel]) -> None:
        """Register a settings class.

        Raises:
            ValueError: another class has this name.
        """
        if self._classes.setdefault(name, settings) is not settings:
            raise ValueError(f"the {self._entry} {name!r} is registered already; choose another name")

    def __getitem__(self, name: str) -> type[SettingsModel]:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def fields(self) -> list[str]:
        """Return the names of the settings of all classes."""
        return list(dict.fromkeys(name for settings in self._classes.values() for name in settings.model_fields))


def raise_errors(title: str, errors: list[InitErrorDetails]) -> None:
    """Raise a validation error that pydantic merges into the error of the enclosing block, if there are errors."""
    if errors:
        raise ValidationError.from_exception_data(title, errors)


def collect_errors(error: ValidationError, *path: str) -> list[InitErrorDetails]:
    """Return the details of a validation error, with `path` in front of the path of each setting."""
    return [
        InitErrorDetails(type=e["type"], loc=(*path, *e["loc"]), input=e["input"], ctx=e.get("ctx", {}))
        for e in error.errors()
    ]


def known_choices(registry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the context of a `literal_error` whose allowed values are the names of a registry."""
    return {"expected": " or ".join(map(repr, registry))}
