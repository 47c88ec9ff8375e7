"""Guess the settings of a task from the columns of its files; every guess has a line that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import reduce
from math import gcd

from hyperformer.cli.init.columns import MAX_VALUES, Column, Table
from hyperformer.cli.init.sources import TaskFiles
from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError, suggest_name
from hyperformer.core.types import SPLITS, Source, Split

LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "intent", "sentiment", "topic", "queue", "answer", "y",
)  # fmt: skip
"""Names of columns that are labels where several columns could be."""
MAX_LABELS = 1000
"""Maximum number of labels of a task."""
MAX_CLASS_NUMBERS = 20
"""Labels that are this number of integers or fewer are classes; other numbers are a regression."""
MAX_GRID = 200
"""Maximum number of answers of a regression task."""
HELD_OUT_SHARE = 0.15
"""Share of the rows that validation and test each get, if they have no file."""
MAX_HELD_OUT = 1000
"""Maximum number of rows that validation and test each get, if they have no file."""
FEWEST_ROWS = 8
"""Minimum number of training rows of a label, after rows are held out."""
IMBALANCE = 10
"""Ratio of the most and the least frequent label above which accuracy says little."""


@dataclass(frozen=True)
class Choices:
    """What the command line sets for a task; None is guessed.

    Attributes:
        label: the column of the label.
        text: the template of the text, or a pair of templates.
        kind: `classification` or `regression`.
        scale: minimum, maximum and step of a regression.
        merge: labels that become one answer, by answer.
    """

    label: str | None = None
    text: Source | None = None
    kind: str | None = None
    scale: tuple[str, str, str] | None = None
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Draft:
    """The settings of a task, and the lines that say how they were guessed."""

    files: TaskFiles
    text: Source
    label: str
    kind: str
    metrics: list[str]
    splits: dict[Split, str]
    labels: Counter[str] = field(default_factory=Counter)
    """Number of train rows of each label of a classification."""
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)
    grid: tuple[str, str, str] | None = None
    """Minimum, maximum and step of a regression."""
    drops_missing: bool = False
    rows: Mapping[Split, int] = field(default_factory=dict)
    words_per_row: float = 0.0
    """Mean number of words of a row's text."""
    lines: list[str] = field(default_factory=list)


def draft_task(files: TaskFiles, table: Table, choices: Choices) -> Draft:
    """Guess the settings of a task that the command line does not set.

    Raises:
        HyperFormerError: a setting cannot be guessed; the message names the option that sets it.
    """
    for name in (choices.label, *(text.find_columns(choices.text) if choices.text else ())):
        if name is not None and name not in table.columns:
            raise HyperFormerError(f"{files.task} has no column {name!r}; {suggest_name(name, table.columns)}")
    label = _choose_label(files.task, table, choices)
    template, about_text = _choose_text(files.task, table, label, choices)
    used = {label, *text.find_columns(template)}
    draft = Draft(files, template, label, "", [], {}, rows=table.rows, drops_missing=bool(used & table.missing))
    columns = [table.columns[name] for name in text.find_columns(template)]
    draft.words_per_row = sum(column.word_count / max(column.rows, 1) for column in columns)
    counts = ", ".join(f"{split} {count:,}" for split, count in table.rows.items())
    draft.lines.append(f"{counts} rows; columns {', '.join(table.columns)}")
    draft.lines.append(about_text)
    column = table.columns[label]
    if choices.kind == "regression" or choices.scale or (choices.kind is None and _is_number_scale(column)):
        _draft_regression(draft, column, choices.scale)
    else:
        _draft_classification(draft, table, choices)
    if draft.drops_missing:
        draft.lines.append("rows in which a used value is null are left out (missing: drop)")
    return draft


def _is_number_scale(column: Column) -> bool:
    """Return whether the values are numbers that are no classes."""
    if not column.is_number:
        return False
    has_fractions = any("." in value.rstrip("0").rstrip(".") for value in column.values)
    return has_fractions or column.distinct > MAX_CLASS_NUMBERS


def _choose_label(task: str, table: Table, choices: Choices) -> str:
    if choices.label is not None:
        return choices.label
    reasons = {name: _reason_against(column, table) for name, column in table.columns.items()}
    used = set(text.find_columns(choices.text)) if choices.text else set()
    candidates = [name for name, reason in reasons.items() if reason is None and name not in used]
    named = [name for name in candidates if name.lower() in LABEL_NAMES]
    for names in (candidates, named):
        if len(names) == 1:
            return names[0]
    if candidates:
        raise HyperFormerError(
            f"{task}: the label may be {' or '.join(map(repr, named or candidates))}; expected one column. Set it with "
            f"--label {task}=COLUMN."
        )
    listed = "; ".join(f"{name!r} {reason}" for name, reason in reasons.items() if reason)
    raise HyperFormerError(
        f"{task}: no column looks like a label ({listed}); expected a column with few different values. Add one, or "
        f"set it with --label {task}=COLUMN."
    )


def _reason_against(column: Column, table: Table) -> str | None:
    """Return why a column is not a label; None if it may be one."""
    if not column.filled:
        return "is empty"
    if column.distinct == 1:
        return "has a single value"
    if column.is_date:
        return "has dates"
    if column.is_text:
        return "is text"
    if column.is_number and column.distinct > MAX_CLASS_NUMBERS:
        return "has another number in nearly every row" if column.differs else None
    if column.is_identifier:
        return "has another value in nearly every row"
    most = min(MAX_LABELS, max(2, table.rows["train"] // FEWEST_ROWS))
    if column.distinct > most:
        return f"has {_count_values(column)} different values"
    return None


def _count_values(column: Column) -> str:
    return f"more than {MAX_VALUES:,}" if column.distinct > MAX_VALUES else f"{column.distinct:,}"


def _choose_text(task: str, table: Table, label: str, choices: Choices) -> tuple[Source, str]:
    """Return the template of the text, and the line that describes the choice."""
    if choices.text is not None:
        if label in text.find_columns(choices.text):
            raise HyperFormerError(
                f"{task}: the text {choices.text!r} has the label column {label!r}; expected other columns. Change "
                "--text or --label."
            )
        return choices.text, f"text: {choices.text!r}"
    others = {name: column for name, column in table.columns.items() if name != label}
    names = [name for name, column in others.items() if column.is_text]
    short = [name for name, column in others.items() if not (column.is_number or column.is_date) and column.filled]
    if not names and len(short) == 1:  # short texts
        names = short
    ignored = [name for name in table.columns if name != label and name not in names]
    if not names:
        raise HyperFormerError(
            f"{task}: no column looks like text (label {label!r}; others: {', '.join(map(repr, ignored)) or 'none'}); "
            f"expected one. Set it with --text {task}='{{COLUMN}}'."
        )
    for name in names:
        if set(name) & set("{}:!"):
            raise HyperFormerError(
                f"{task}: the column {name!r} has one of the characters {{ }} : !, which a template cannot have; "
                "expected a name without them. Rename the column in the file."
            )
    aside = f"; not used: {', '.join(ignored)} (--text)" if ignored else ""
    if len(names) == 1:
        return f"{{{names[0]}}}", f"text: {names[0]}{aside}"
    if len(names) == 2:
        pair = (f"{{{names[0]}}}", f"{{{names[1]}}}")
        return pair, f"text: the pair {names[0]}, {names[1]}{aside}"
    template = " ".join(f"{name}: {{{name}}}" for name in names)
    return template, f"text: {', '.join(names)}, one after the other{aside}"


def _draft_regression(draft: Draft, column: Column, scale: tuple[str, str, str] | None) -> None:
    task = draft.files.task
    if not column.is_number:
        raise HyperFormerError(
            f"{task}: {column.filled - column.numbers} values of {column.name!r} are no numbers; expected numbers for "
            f"a regression. Use --kind {task}=classification, or fix the values."
        )
    draft.grid = scale or _find_grid(sorted(map(Decimal, column.values)))
    if draft.grid is None:
        raise HyperFormerError(
            f"{task}: the label {column.name!r} has {_count_values(column)} different numbers, on no scale of at most "
            f"{MAX_GRID} steps; expected a scale. Set one with --scale {task}=MINIMUM:MAXIMUM:STEP, such as 0:5:0.2."
        )
    draft.kind, draft.metrics = "regression", ["pearson", "spearman"]
    low, high, step = draft.grid
    draft.lines.append(f"label: {column.name}, a number from {low} to {high} in steps of {step} (--scale, --kind)")
    _draft_splits(draft, "hold_out", draft.rows["train"])


def _find_grid(values: Sequence[Decimal]) -> tuple[str, str, str] | None:
    """Return minimum, maximum and the largest step whose multiples are all values; None if there are too many steps."""
    if not values:
        return None
    places = max(0, *(-int(value.normalize().as_tuple().exponent) for value in values))
    scaled = [int(value.scaleb(places)) for value in values]
    step = reduce(gcd, (value - scaled[0] for value in scaled))
    if not step or (scaled[-1] - scaled[0]) // step > MAX_GRID:
        return None
    return tuple(format(Decimal(value).scaleb(-places).normalize(), "f") for value in (scaled[0], scaled[-1], step))  # type: ignore[return-value]


def _draft_classification(draft: Draft, table: Table, choices: Choices) -> None:
    task, column, labels = draft.files.task, table.columns[draft.label], table.train[draft.label]
    if column.distinct > MAX_LABELS:
        raise HyperFormerError(
            f"{task}: the label {column.name!r} has {_count_values(column)} different values; expected at most "
            f"{MAX_LABELS}. Choose another column with --label {task}=COLUMN, or group the values."
        )
    if len(labels) < 2:
        raise HyperFormerError(
            f"{task}: the label {column.name!r} has {len(labels)} values in train; expected at least 2. Choose another "
            f"column with --label {task}=COLUMN."
        )
    if column.empty and column.name not in table.missing:
        raise HyperFormerError(
            f"{task}: {column.empty} rows have an empty label {column.name!r}; expected a label in each row. Fill the "
            "cells, or remove the rows."
        )
    if unseen := [value for value in column.values if value not in labels]:
        raise HyperFormerError(
            f"{task}: the label {unseen[0]!r} occurs in validation or test, but not in train; expected rows of every "
            "label in train. Add some, or remove the rows."
        )
    for label in (label for merged in choices.merge.values() for label in merged):
        if label not in labels:
            raise HyperFormerError(f"{task}: --merge has the unknown label {label!r}; {suggest_name(label, labels)}")
    draft.kind, draft.labels, draft.merge = "classification", Counter(dict(sorted(labels.items()))), choices.merge
    sizes = _merge_counts(labels, choices.merge)
    most, least = max(sizes.values()), min(sizes.values())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    draft.lines.append(f"label: {column.name}, {len(sizes)} classes with {each} training rows each (--label, --kind)")
    draft.metrics = ["accuracy", "f1"]
    if most > IMBALANCE * least:
        draft.metrics = ["f1"]
        draft.lines.append(
            f"imbalance: the most frequent label has {most / least:.0f} times the rows of the least frequent; the "
            "metric is F1"
        )
    _draft_splits(draft, "stratified", draft.rows["train"])
    share = sum(int(rule.rpartition("_")[2]) for rule in draft.splits.values() if rule.startswith("stratified"))
    kept = 1 - share / draft.rows["train"]
    for label, count in sizes.items():
        if int(count * kept) < FEWEST_ROWS:
            raise HyperFormerError(
                f"{task}: the label {label!r} has {count} rows, of which {int(count * kept)} stay for training; "
                f"expected at least {FEWEST_ROWS}. Add rows, or join labels with --merge {task}:ANSWER={label},OTHER."
            )


def _merge_counts(labels: Counter[str], merge: Mapping[str, Sequence[str]]) -> Counter[str]:
    """Return the number of rows of each answer."""
    answers = {label: answer for answer, merged in merge.items() for label in merged}
    sizes: Counter[str] = Counter()
    for label, count in labels.items():
        sizes[answers.get(label, label)] += count
    return sizes


def _draft_splits(draft: Draft, prefix: str, rows: int) -> None:
    """Choose the origin of validation and test: their files, or training rows."""
    held = max(1, min(MAX_HELD_OUT, round(HELD_OUT_SHARE * rows)))
    for split in SPLITS:
        if split not in draft.files.files:
            draft.splits[split] = f"{prefix}_{held}"
        elif (name := draft.files.source_split(split)) != split:
            draft.splits[split] = name
    if missing := [split for split in SPLITS if split not in draft.files.files]:
        each, have = (" each", "have") if len(missing) > 1 else ("", "has")
        draft.lines.append(f"splits: {held:,} training rows{each} for {' and '.join(missing)}, which {have} no file")
