"""What is measured: the suites of plan.yaml, typed, and the settings of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hyperformer.config import ConfigurationError, Settings, check, nearest
from pipelines.settings import ConfigLoader

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
PLAN = HERE / "plan.yaml"
Count = Annotated[int, Field(gt=0)]


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Suite(_Plan):
    """What is measured on one set of tasks."""

    environment: str
    changes: dict[str, Any] = {}
    """Settings of the environment that are other here, by their dotted names."""
    seeds: Annotated[list[int], Field(min_length=1)]
    test_rows: Count
    """At most so many test rows a task are scored, the first ones."""


class ComparisonSuite(Suite):
    """Methods, or ways of one method, beside each other."""

    contenders: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """What is compared, by name: the settings of each that are its own, by their dotted names."""
    rates: Annotated[list[float], Field(min_length=1)]
    """Learning rates, rising, the same for all: from the middle outwards, until the best has tried neighbours."""

    @field_validator("rates")
    @classmethod
    def _rising(cls, rates: list[float]) -> list[float]:
        if rates != sorted(set(rates)):
            raise ValueError("expected rates that rise")
        return rates


class Adapted(_Plan):
    """A comparison's model, and how it is adapted."""

    trained: str
    """A contender of the comparison."""
    initialize_from: Literal["nearest", "mean", "random"] = "nearest"
    train: Literal["all", "task_specific"] = "all"


class TransferSuite(Suite):
    """Trained models beside each other on new tasks of few rows."""

    comparison: str
    """The suite whose models are adapted."""
    tasks: Annotated[list[str], Field(min_length=1)]
    """Of the environment's."""
    contenders: Annotated[dict[str, Adapted], Field(min_length=1)]
    samples: Annotated[list[Count], Field(min_length=1)]


class Plan(_Plan):
    """All suites by name."""

    comparison: dict[str, ComparisonSuite]
    transfer: dict[str, TransferSuite]


def plan(path: Path = PLAN) -> Plan:
    """The plan of a file.

    Raises:
        ConfigurationError: it has a fault; the first one is named.
    """
    try:
        return Plan(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ConfigurationError(f"{path.name}, {where}: {fault['msg']}, got {fault['input']!r}; mend it") from None


def named(suites: dict[str, Any], name: str) -> Any:
    """The suite of a name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in suites:
        raise ConfigurationError(f"unknown suite {name!r}; {nearest(name, suites)}")
    return suites[name]


def settings_of(suite: Suite, **changes: Any) -> Settings:
    """The environment's settings with the suite's changes, and more of them by their dotted names."""
    given = OmegaConf.create()
    for name, value in {**suite.changes, **changes}.items():
        OmegaConf.update(given, name, value)
    loader = ConfigLoader(
        str(ROOT / "conf"),
        env=suite.environment,
        base_env="base",
        default_run_env="local",
        runtime_params=OmegaConf.to_container(given),
    )
    return check(loader["parameters"])
