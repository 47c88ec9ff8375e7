"""Settings of the tasks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    RootModel,
    SerializeAsAny,
    model_validator,
)
from pydantic_core import InitErrorDetails

from hyperformer.core.manifest import BASE, GRAPH, MANIFEST, TOKENIZER
from hyperformer.core.types import Source
from hyperformer.settings.base import Positive, SettingsModel
from hyperformer.settings.registry import Registry, known_choices, raise_errors

HALVE = "halve_"
"""Prefix of the name of a source split of which a split gets a half."""
HOLD_OUT = "hold_out_"
"""Prefix of the number of training rows that a split gets."""
STRATIFIED = "stratified_"
"""Prefix of the number of training rows that a split gets, with every label in its share."""


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


def is_held_out(source: str) -> bool:
    """Return whether a value of `splits` holds out training rows."""
    return source.startswith((HOLD_OUT, STRATIFIED))


class SplitSettings(SettingsModel):
    """Origin of the rows of each split of a task.

    A value is the name of a source split, `halve_<name>`, `hold_out_<N>` or `stratified_<N>`. `halve_<name>` is a
    random half of the source split `<name>`; a split with the value `<name>` then has only the other half.
    `hold_out_<N>`, allowed for validation and test, moves N random rows from train to this split; `stratified_<N>`,
    only for classification, does so with every label in its share of the rows.
    """

    train: str = "train"
    validation: str = "validation"
    test: str = "test"

    @model_validator(mode="after")
    def _check_hold_out(self) -> SplitSettings:
        for split, source in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if is_held_out(source) and (split == "train" or not re.fullmatch(r"[a-z_]+_[1-9]\d*", source)):
                raise ValueError(
                    f"{split} is {source!r}; expected the name of a split, or {HOLD_OUT}<N> or {STRATIFIED}<N> for "
                    "validation and test"
                )
        return self


def _parse_source(value: Any) -> Source:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return value[0], value[1]
    advice = '. Quote a text that begins with a brace: "{column}"' if isinstance(value, Mapping) else ""
    raise ValueError(f"expected a string, or a list of two strings, got {value!r}{advice}")


class TaskSettings(SettingsModel):
    """Settings that tasks of all kinds have; a kind adds its own (`hyperformer.tasks`)."""

    source: SourceSettings = SourceSettings()
    text: Annotated[Source, BeforeValidator(_parse_source)]
    """Template of the source text, with column names in braces. A list of two templates makes a text pair, which an
    encoder's tokenizer encodes as a pair; for T5, the two texts are joined with a space.
    """
    kind: str
    """Kind of the task: `classification`, `regression`, `generation`, or another registered kind."""
    label_column: str
    """Column with the label (classification), the number (regression) or the text to generate (generation)."""
    missing: Literal["empty", "drop"] | None = None
    """Meaning of a value of `text` or `label_column` that is null or missing: `empty`, an empty text; `drop`, a row to
    leave out of training; null: an error.
    """
    metrics: tuple[str, ...] = Field(min_length=1)
    """Metrics to compute. Their mean is the task's score in the choice of the best checkpoint."""
    splits: SplitSettings = SplitSettings()
    weight: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    """Factor on the task's sampling probability, before the probabilities of all tasks are scaled to sum to 1."""
    has_classes: ClassVar[bool] = False
    """Whether the labels of the kind are classes, so that a split can be stratified."""

    @model_validator(mode="after")
    def _check_stratified(self) -> TaskSettings:
        rules = (self.splits.validation, self.splits.test)
        if not self.has_classes and (stratified := [rule for rule in rules if rule.startswith(STRATIFIED)]):
            raise ValueError(
                f"a {self.kind} task has no classes to stratify, but `splits` has {stratified[0]}; use "
                f"{HOLD_OUT}{stratified[0].removeprefix(STRATIFIED)}"
            )
        return self


TASK_SETTINGS = Registry("task kind")
"""The settings class of each kind of task; `hyperformer.tasks` registers those of the library."""


def _parse_task(value: Any) -> Any:
    """Validate a task with the settings class of its kind; a null setting of another kind is left out."""
    if not isinstance(value, Mapping):
        return value
    if "kind" not in value:
        known = set(TASK_SETTINGS.fields())
        unknown = [
            InitErrorDetails(type="extra_forbidden", loc=(str(name),), input=setting)
            for name, setting in value.items()
            if name not in known
        ]
        raise_errors("Tasks", [InitErrorDetails(type="missing", loc=("kind",), input=value), *unknown])
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in TASK_SETTINGS:
        choices = known_choices(TASK_SETTINGS)
        raise_errors("Tasks", [InitErrorDetails(type="literal_error", loc=("kind",), input=kind, ctx=choices)])
    other = set(TASK_SETTINGS.fields()) - TASK_SETTINGS[kind].model_fields.keys()
    present = {name: setting for name, setting in value.items() if setting is not None or name not in other}
    return TASK_SETTINGS[kind].model_validate(present)


RESERVED_KEYS = {
    "diagnostics": "measures of the weights",
    "mean": "the mean over tasks",
    "step": "the training step",
}
"""Names in the metrics and the history of a training run that stand beside the names of tasks."""
RESERVED_FILES = (BASE, GRAPH, f"{GRAPH}.data", MANIFEST, TOKENIZER, "work.json")
"""Names of files that stand beside the folders of tasks, or mark a folder as the bundle of a task.

`work.json` stands beside the resume states of the tasks that a trained model is adapted to.
"""
MAX_BYTES = 200
"""Maximum length of a task's name in UTF-8, in bytes; a file name has at most 255, some with a suffix."""


def _check_name(name: str) -> None:
    if not name.strip() or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
        raise ValueError(
            f"got the task name {name!r}; expected the name of a folder: no slash or backslash, no leading "
            "dot, no control character, and not blank"
        )
    if name in RESERVED_KEYS:
        raise ValueError(
            f"got the task name {name!r}, which is the key of {RESERVED_KEYS[name]} in the results; expected another "
            "name. Rename the task"
        )
    if name.casefold() in RESERVED_FILES:
        raise ValueError(
            f"got the task name {name!r}, which is the name of a file beside the folders of tasks; "
            "expected another name. Rename the task"
        )
    if len(name.encode()) > MAX_BYTES:
        raise ValueError(
            f"got the task name {name[:20]!r}… of {len(name.encode())} bytes; expected at most {MAX_BYTES}. Rename the "
            "task"
        )


class Tasks(RootModel[dict[str, Annotated[SerializeAsAny[TaskSettings], BeforeValidator(_parse_task)]]]):
    """All tasks by name; a name must be valid as the name of a folder."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _check_names(self) -> Tasks:
        if not self.root:
            raise ValueError("there are no tasks; expected a block for each task. Add one under `tasks`")
        names: dict[str, str] = {}
        for name in self.root:
            _check_name(name)
            other = names.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
            if other != name:
                raise ValueError(
                    f"got the task names {other!r} and {name!r}, which the file system of macOS does not distinguish; "
                    "expected names that differ in more than case and accents' encoding. Rename one"
                )
        return self
