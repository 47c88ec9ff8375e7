"""Settings of the tasks."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    RootModel,
    model_validator,
)

from hyperformer.core.types import Source
from hyperformer.settings.base import Positive, SettingsModel

HALVE = "halve_"
"""Prefix of a value in `SplitSettings`."""
HOLD_OUT = "hold_out_"
"""Prefix of a value in `SplitSettings`."""
MAX_ANSWERS = 1000
"""Maximum number of steps between the minimum and the maximum of a regression task."""


class SourceSettings(SettingsModel):
    """Location of a task's rows."""

    path: str | None = None
    """Any value that `data.source` can have; null: the value of `data.source`."""
    name: str | None = None
    """Subfolder of a local `path`, configuration name of a dataset on the Hub, or name of an embedded task.
    null: no subfolder, the default configuration, or the embedded task with the name of this task.
    """
    revision: str | None = None
    """Branch, tag or commit on the Hub; null: the default branch."""
    rows: Positive | None = None
    """Use only the first `rows` rows of each source split; rows from the Hub are then streamed. null: all rows."""


class SplitSettings(SettingsModel):
    """Origin of the rows of each split of a task.

    A value is the name of a source split, `halve_<name>` or `hold_out_<N>`. `halve_<name>` is a random half of the
    source split `<name>`; a split with the value `<name>` then has only the other half. `hold_out_<N>`, allowed for
    validation and test, moves N random rows from train to this split.
    """

    train: str = "train"
    validation: str = "validation"
    test: str = "test"

    @model_validator(mode="after")
    def _check_hold_out(self) -> SplitSettings:
        for split, source in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if source.startswith("hold_out_") and (split == "train" or not re.fullmatch(r"hold_out_[1-9]\d*", source)):
                raise ValueError(
                    f"{split} is {source!r}; expected the name of a split, or hold_out_<N> for validation and test"
                )
        return self


def _parse_source(value: Any) -> Source:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return value[0], value[1]
    raise ValueError(f"expected a string, or a list of two strings, got {value!r}")


class TaskSettings(SettingsModel):
    """A task: the location of its rows, their text template, and the possible answers."""

    source: SourceSettings = SourceSettings()
    text: Annotated[Source, BeforeValidator(_parse_source)]
    """Template of the source text, with column names in braces. A list of two templates makes a text pair, which an
    encoder's tokenizer encodes as a pair; for T5, the two texts are joined with a space.
    """
    kind: Literal["classification", "regression", "generation"]
    label_column: str
    """Column with the label (classification), the number (regression) or the text to generate (generation)."""
    labels: dict[str | int | bool, Annotated[str, Field(min_length=1)]] | None = None
    """Classification only: maps each value of the label column to its answer text."""
    minimum: FiniteFloat | None = None
    """Regression only: the smallest answer."""
    maximum: FiniteFloat | None = None
    """Regression only: upper limit of the answers."""
    step: FiniteFloat | None = None
    """Regression only: distance between adjacent answers, which are `minimum`, `minimum + step`, … up to `maximum`."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Metrics to compute. Their mean is the task's score in the choice of the best checkpoint."""
    splits: SplitSettings = SplitSettings()
    weight: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    """Factor on the task's sampling probability, before the probabilities of all tasks are scaled to sum to 1."""

    @model_validator(mode="after")
    def _check_answers(self) -> TaskSettings:
        grid = (self.minimum, self.maximum, self.step)
        if self.kind == "classification":
            if self.labels is None or len(self.labels) < 2 or any(v is not None for v in grid):
                raise ValueError(
                    "a classification task must have at least two `labels`, and no minimum, maximum or step"
                )
            if len(set(self.labels.values())) < len(self.labels):
                raise ValueError("two labels have the same answer text; use a different text for each")
            if len({str(value) for value in self.labels}) < len(self.labels):
                raise ValueError("two labels have the same column value; use a different value for each")
        elif self.kind == "generation":
            if self.labels is not None or any(v is not None for v in grid):
                raise ValueError("a generative task must not have labels, minimum, maximum or step; remove them")
        elif self.labels is not None or any(v is None for v in grid):
            raise ValueError("a regression task must have `minimum`, `maximum` and `step`, and no labels")
        elif self.step <= 0 or self.maximum <= self.minimum:  # type: ignore[operator]
            raise ValueError("a regression task must have step > 0 and maximum > minimum")
        elif self.maximum - self.minimum < self.step:  # type: ignore[operator]
            raise ValueError("a regression task must have at least two answers; use a smaller step")
        elif (self.maximum - self.minimum) / self.step > MAX_ANSWERS:  # type: ignore[operator]
            raise ValueError(f"a regression task must have at most {MAX_ANSWERS} steps in its range; use a larger step")
        return self


class Tasks(RootModel[dict[str, TaskSettings]]):
    """All tasks by name; a name must be valid as the name of a folder."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _check_names(self) -> Tasks:
        for name in self.root:
            if not name.strip() or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
                raise ValueError(
                    f"got the task name {name!r}; expected the name of a folder: no slash or backslash, no leading "
                    "dot, no control character, and not blank"
                )
        return self
