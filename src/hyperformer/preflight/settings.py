"""Validation of a parameter tree, with messages that name each setting and the right name or value."""

from __future__ import annotations

import re
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

import hyperformer.methods
import hyperformer.tasks  # noqa: F401 - registers the settings of kinds of tasks
from hyperformer.core.errors import suggest_name
from hyperformer.settings import ConfigurationError, Methods, RunSettings, Settings
from hyperformer.settings.methods import METHOD_SETTINGS
from hyperformer.settings.renamed import RENAMED_VALUES, generic_name, new_name
from hyperformer.settings.tasks import TASK_SETTINGS

EXPECTED = {
    "list_type": "a list, such as [a, b]",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "a mapping, such as {name: value}",
    "model_type": "a block of settings, such as {name: value}",
}
"""Description of the values that a setting may have, by the type of the error."""
S = TypeVar("S", bound=RunSettings)


def check_settings(parameters: dict[str, Any]) -> Settings:
    """Validate the parameter tree of a Kedro environment; see `check_blocks` for the errors."""
    return check_blocks(parameters, Settings)


def check_blocks(parameters: dict[str, Any], schema: type[S]) -> S:
    """Validate a parameter tree and return its typed settings.

    Args:
        parameters: the parameter tree.
        schema: the class of the settings.

    Raises:
        ConfigurationError: Keys are unknown, renamed or missing, or values are invalid; the message lists all of them.
            Or `methods` has no settings for the value of `method`.
    """
    try:
        settings = schema.model_validate(parameters)
    except ValidationError as error:
        errors = error.errors()
        renamed = {new_name(e["loc"]) for e in errors if e["type"] == "extra_forbidden"}
        errors = [e for e in errors if e["type"] != "missing" or generic_name(e["loc"]) not in renamed]
        messages = [_message(error, schema) for error in errors]
        raise ConfigurationError("; ".join(messages)) from None
    settings.methods.get_method(settings.method)
    return settings


def _message(error: Any, schema: type[RunSettings]) -> str:
    path, known = _resolve(error["loc"], schema)
    setting = ".".join(path)
    if error["type"] == "extra_forbidden" and (new := new_name(error["loc"])):
        return f"the setting {setting!r} is now called {new.rpartition('.')[2]!r}; rename it"
    if error["type"] == "extra_forbidden" and (kinds := _other_kinds(error["loc"])):
        return f"the setting {setting!r} is only for {' or '.join(kinds)} tasks; remove it, or change `kind`"
    if error["type"] == "extra_forbidden":
        return f"unknown setting {setting!r}; {suggest_name(path[-1], known)}"
    if error["type"] == "missing":
        return f"the setting {setting!r} is missing; add it to the parameters"
    if error["type"] == "literal_error" and (new := _new_value(error)):
        return f"the setting {setting!r} is {error['input']!r}, which is now called {new!r}; rename it"
    if error["type"] == "literal_error":
        return f"the setting {setting!r} is {error['input']!r}; {suggest_name(str(error['input']), _choices(error))}"
    if error["type"] == "string_type" and isinstance(error["input"], bool):
        advice = "Quote yes, no, on, off, true and false in YAML"
        return f"the setting {setting!r} is the boolean {error['input']}; expected a string. {advice}"
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        return f"the setting {setting!r} is the number {error['input']}; expected a string. Quote it in YAML"
    if error["type"] in EXPECTED:
        return f"the setting {setting!r} is {error['input']!r}; expected {EXPECTED[error['type']]}"
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"the setting {setting!r} is invalid: {error['msg'].removeprefix('Value error, ')}{got}"


def _new_value(error: Any) -> str | None:
    return RENAMED_VALUES.get(generic_name(error["loc"]), {}).get(str(error["input"]))


def _choices(error: Any) -> list[str]:
    """Return the allowed values of a setting from pydantic's text `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _other_kinds(loc: tuple[int | str, ...]) -> list[str]:
    """Return the kinds of tasks that have a setting; none if it is not the setting of a task."""
    if len(loc) != 3 or loc[0] != "tasks":
        return []
    return [kind for kind, settings in TASK_SETTINGS.items() if loc[2] in settings.model_fields]


def _resolve(loc: tuple[int | str, ...], schema: type[RunSettings]) -> tuple[list[str], list[str]]:
    """Return the path of a setting, and the names that its block may have."""
    model: Any = schema
    path: list[str] = []
    names: list[str] = []
    for part in loc:
        if part == "[key]":  # pydantic's name for the key of a mapping
            continue
        fields = _fields(model)
        names, model = list(fields), fields.get(str(part))
        path.append(str(part))
        if model is None and names == [] and len(path) == 2 and path[0] == "tasks":
            model = TASK_SETTINGS
    return path, names


def _fields(model: Any) -> dict[str, Any]:
    """Return the settings of a block by name, each with the class of its own block, if it is one."""
    if model is Methods:
        return dict(METHOD_SETTINGS)
    if model is TASK_SETTINGS:
        return {name: field for kind in TASK_SETTINGS.values() for name, field in _fields(kind).items()}
    fields = getattr(model, "model_fields", {})
    return {name: _block_class(field.annotation) for name, field in fields.items() if name != "root"}


def _block_class(annotation: Any) -> Any:
    """Return the settings class of an annotation such as `Block` or `Block | None`."""
    return next((kind for kind in get_args(annotation) if hasattr(kind, "model_fields")), annotation)
