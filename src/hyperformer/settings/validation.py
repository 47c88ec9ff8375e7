"""Validation of a parameter tree, with messages that name the setting and the right name."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import (
    Field,
    ValidationError,
)

from hyperformer.core.errors import suggest_name
from hyperformer.settings.backbone import BackboneSettings
from hyperformer.settings.base import ConfigurationError, SettingsModel
from hyperformer.settings.data import DataSettings
from hyperformer.settings.embedded import EmbeddedSettings
from hyperformer.settings.evaluation import EvaluationSettings
from hyperformer.settings.export import ExportSettings
from hyperformer.settings.methods import Methods, MethodSettings
from hyperformer.settings.pretraining import PretrainingSettings
from hyperformer.settings.renamed import RENAMED_VALUES, generic_name, new_name
from hyperformer.settings.tasks import Tasks, TaskSettings
from hyperformer.settings.training import TrainingSettings
from hyperformer.settings.transfer import TransferSettings


class Settings(SettingsModel):
    """All settings of a Kedro environment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of everything random: splits, initial weights and the order of rows."""
    embedded: EmbeddedSettings
    pretraining: PretrainingSettings
    backbone: BackboneSettings
    data: DataSettings
    tasks: Tasks
    method: str
    """Method to train: the name of one of the blocks of `methods`."""
    methods: Methods
    training: TrainingSettings
    transfer: TransferSettings
    evaluation: EvaluationSettings
    export: ExportSettings

    @property
    def chosen_method(self) -> MethodSettings:
        """The settings of the method that `method` names."""
        return self.methods.get_method(self.method)


def check_settings(parameters: dict[str, Any]) -> Settings:
    """Validate a parameter tree and return its typed settings.

    Raises:
        ConfigurationError: Keys are unknown, renamed or missing, or values are invalid; the message lists all of them.
            Or `methods` has no settings for the value of `method`.
    """
    try:
        settings = Settings.model_validate(parameters)
    except ValidationError as error:
        errors = error.errors()
        renamed = {new_name(e["loc"]) for e in errors if e["type"] == "extra_forbidden"}
        messages = [_message(e) for e in errors if e["type"] != "missing" or generic_name(e["loc"]) not in renamed]
        raise ConfigurationError("; ".join(messages)) from None
    settings.methods.get_method(settings.method)
    return settings


def _message(error: Any) -> str:
    path, known = _resolve(error["loc"])
    setting = ".".join(path)
    if error["type"] == "extra_forbidden" and (new := new_name(error["loc"])):
        return f"the setting {setting!r} is now called {new.rpartition('.')[2]!r}; rename it"
    if error["type"] == "extra_forbidden":
        return f"unknown setting {setting!r}; {suggest_name(path[-1], known)}"
    if error["type"] == "missing":
        return f"the setting {setting!r} is missing; add it to the parameters"
    if error["type"] == "literal_error" and (new := _new_value(error)):
        return f"the setting {setting!r} is {error['input']!r}, which is now called {new!r}; rename it"
    if error["type"] == "literal_error":
        return f"the setting {setting!r} is {error['input']!r}; {suggest_name(str(error['input']), _choices(error))}"
    if isinstance(error["input"], bool) and error["type"] == "string_type":
        advice = "Quote yes, no, on, off, true and false in YAML"
        return f"the setting {setting!r} is the boolean {error['input']}; expected a string. {advice}"
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"the setting {setting!r} is invalid: {error['msg'].removeprefix('Value error, ')}{got}"


def _new_value(error: Any) -> str | None:
    return RENAMED_VALUES.get(generic_name(error["loc"]), {}).get(str(error["input"]))


def _choices(error: Any) -> list[str]:
    """Return the allowed values of a setting from pydantic's text `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _resolve(loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Return the path of a setting, and the names that its block may have."""
    model: Any = Settings
    path: list[str] = []
    names: list[str] = []
    for part in loc:
        names = list(getattr(model, "model_fields", []))
        path.append(str(part))
        model = TaskSettings if model is Tasks else getattr(model, "model_fields", {}).get(part)
        model = getattr(model, "annotation", model)
        model = next((kind for kind in get_args(model) if hasattr(kind, "model_fields")), model)  # of `… | None`
    return path, names
