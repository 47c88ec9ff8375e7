"""The typed suites of plan.yaml, and the settings that each suite resolves to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hyperformer.core.errors import suggest_name
from hyperformer.preflight.settings import check_settings
from hyperformer.settings import ConfigurationError, Settings
from pipelines.settings import ConfigLoader

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
PLAN = HERE / "plan.yaml"
Count = Annotated[int, Field(gt=0)]


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Suite(_Plan):
    """Measurements on one set of tasks."""

    environment: str
    changes: dict[str, Any] = {}
    """Overrides of the environment's settings, by dotted name."""
    seeds: Annotated[list[int], Field(min_length=1)]
    test_rows: Count
    """Maximum number of test rows to score per task; the first rows are used."""


class ComparisonSuite(Suite):
    """Methods, or variants of a method, compared with each other."""

    configurations: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Configurations by name; each consists of further overrides of the settings, by dotted name."""
    learning_rates: Annotated[list[float], Field(min_length=1)]
    """Candidate learning rates in increasing order, the same for all configurations."""
    search_from: dict[str, float] = {}
    """Learning rate that the search of a configuration tries first; by default the middle candidate."""
    small_tasks: list[str] = []
    """Tasks with so few test rows that a second mean leaves them out."""
    train_rows: Count | None = None
    """Training rows of each task, sampled with each run's seed; null: all rows. A smaller task has all its rows."""

    @field_validator("learning_rates")
    @classmethod
    def _check_order(cls, learning_rates: list[float]) -> list[float]:
        if learning_rates != sorted(set(learning_rates)):
            raise ValueError("expected learning rates in increasing order")
        return learning_rates

    @model_validator(mode="after")
    def _check_search(self) -> ComparisonSuite:
        for configuration, learning_rate in self.search_from.items():
            if configuration not in self.configurations or learning_rate not in self.learning_rates:
                raise ValueError(
                    f"search_from has {configuration}: {learning_rate:g}; expected a configuration and a candidate"
                )
        return self


class Adaptation(_Plan):
    """A trained model of a comparison, and how it is adapted to a new task."""

    model: str
    """The configuration of the comparison whose trained model is adapted."""
    initialize_from: Literal["nearest", "mean", "random"] = "nearest"
    train: Literal["all", "task_specific"] = "all"


class TransferSuite(Suite):
    """Trained models compared on new tasks with few training rows."""

    comparison: str
    """The name of the comparison suite whose models are adapted."""
    tasks: Annotated[list[str], Field(min_length=1)]
    """New tasks, a subset of the tasks of the environment."""
    configurations: Annotated[dict[str, Adaptation], Field(min_length=1)]
    samples: Annotated[list[Count], Field(min_length=1)]
    """Numbers of training rows to adapt to; each number has separate runs."""


class Plan(_Plan):
    """All suites, by kind and name."""

    comparison: dict[str, ComparisonSuite]
    transfer: dict[str, TransferSuite]


def load_plan(path: Path = PLAN) -> Plan:
    """Load and validate a plan.

    Args:
        path: A YAML file.

    Raises:
        ConfigurationError: a value of the plan is invalid; the message names the first such value.
    """
    try:
        return Plan(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        message = f"{path.name}, {name}: {fault['msg']}, got {fault['input']!r}. Fix this value."
        raise ConfigurationError(message) from None


def find_suite(suites: dict[str, Any], name: str) -> Any:
    """Return the suite called `name`.

    Raises:
        ConfigurationError: no suite has this name; the message suggests the most similar name.
    """
    if name not in suites:
        raise ConfigurationError(f"unknown suite {name!r}; {suggest_name(name, suites)}")
    return suites[name]


def resolve_settings(suite: Suite, **changes: Any) -> Settings:
    """Return the environment's settings with overrides by dotted name: the suite's, then `changes`."""
    overrides = OmegaConf.create()
    for name, value in {**suite.changes, **changes}.items():
        OmegaConf.update(overrides, name, value)
    loader = ConfigLoader(
        str(ROOT / "conf"),
        env=suite.environment,
        base_env="base",
        default_run_env="local",
        runtime_params=OmegaConf.to_container(overrides),
    )
    return check_settings(loader["parameters"])
