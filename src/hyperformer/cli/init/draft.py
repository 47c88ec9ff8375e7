"""Guess the settings of a task from the columns of its files; every guess has a line that says so."""

from __future__ import annotations

import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import reduce
from math import gcd

from hyperformer.cli.init.columns import NUMBER, Column, Table
from hyperformer.cli.init.labels import FEWEST_ROWS, MAX_LABELS, choose_label, count_values, is_number_scale
from hyperformer.cli.init.sources import TaskFiles
from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError, suggest_name
from hyperformer.core.types import SPLITS, Source, Split

MAX_NAMES = 20
"""Maximum number of columns that a line lists."""
TOKENS_PER_WORD = 1.4
MAX_TOKENS = 128
"""Value of `max_source_tokens` in the presets."""
PROPOSED_STEPS = 100
"""Number of steps of a scale that an error proposes."""
MAX_GRID = 200
"""Maximum number of answers of a regression task."""
HELD_OUT_SHARE = 0.15
"""Share of the rows that validation and test each get, if they have no file."""
MAX_HELD_OUT = 1000
"""Maximum number of rows that validation and test each get, if they have no file."""
IMBALANCE = 10
"""Ratio of the most and the least frequent label above which accuracy says little."""


@dataclass(frozen=True)
class Choices:
    """Settings of a task from the command line; None is guessed.

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
    missing: str | None = None
    """Meaning of a null value, `empty` or `drop`; None if there are none."""
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
    used = set(text.find_columns(choices.text)) if choices.text else set()
    label = choose_label(files.task, table, used) if choices.label is None else choices.label
    template, about_text = _choose_text(files.task, table, label, choices)
    columns = [table.columns[name] for name in text.find_columns(template)]
    draft = Draft(files, template, label, "", [], {}, rows=table.rows)
    draft.words_per_row = sum(column.word_count / max(column.rows, 1) for column in columns)
    counts = ", ".join(f"{split} {count:,}" for split, count in table.rows.items())
    draft.lines.append(f"{counts} rows; columns {_list_names(list(table.columns))}")
    draft.lines.append(about_text)
    _choose_missing(draft, table, [column.name for column in columns])
    column = table.columns[label]
    if column.empty and not column.missing:
        raise HyperFormerError(
            f"{files.task}: the label {label!r} is empty in {_count_rows(column.empty)}; expected a label in each row. "
            "Fill the cells, or remove the rows."
        )
    if choices.kind == "regression" or choices.scale or (choices.kind is None and is_number_scale(column)):
        _draft_regression(draft, column, choices)
    else:
        _draft_classification(draft, table, choices)
    tokens = TOKENS_PER_WORD * draft.words_per_row
    if tokens > MAX_TOKENS:
        draft.lines.append(
            f"long texts: a row has about {tokens:,.0f} tokens, of which the first {MAX_TOKENS} are read "
            "(backbone.max_source_tokens)"
        )
    return draft


def _list_names(names: Sequence[str]) -> str:
    """List names, at most `MAX_NAMES` of them."""
    shown = ", ".join(name if name.strip() == name else repr(name) for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"


def _count_rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _choose_missing(draft: Draft, table: Table, columns: Sequence[str]) -> None:
    """Choose the meaning of null values: an empty text, or a row to leave out if it has no label."""
    if table.columns[draft.label].missing:
        draft.missing = "drop"
        draft.lines.append("missing: rows without a label, or in which a used text is null, are left out")
    elif any(table.columns[name].missing for name in columns):
        draft.missing = "empty"
        draft.lines.append("missing: a text that is null is an empty text")


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
            f"{task}: no column looks like text (label {label!r}; others: {_list_names(ignored) or 'none'}); "
            f"expected one. Set it with --text '{task}={{COLUMN}}'."
        )
    for name in names:
        if set(name) & set("{}:!"):
            raise HyperFormerError(
                f"{task}: the column {name!r} has one of the characters {{ }} : !, which a template cannot have; "
                "expected a name without them. Rename the column in the file."
            )
    aside = f"; not used: {_list_names(ignored)} (--text)" if ignored else ""
    if len(names) == 1:
        return f"{{{names[0]}}}", f"text: {names[0]}{aside}"
    if len(names) == 2:
        pair = (f"{{{names[0]}}}", f"{{{names[1]}}}")
        return pair, f"text: the pair {names[0]}, {names[1]}{aside}"
    template = " ".join(f"{name}: {{{name}}}" for name in names)
    return template, f"text: {', '.join(names)}, one after the other{aside}"


def _draft_regression(draft: Draft, column: Column, choices: Choices) -> None:
    task = draft.files.task
    if choices.kind == "classification":
        raise HyperFormerError(
            f"{task}: got --scale for a classification; expected one of both. Remove --scale or --kind."
        )
    if not column.is_number:
        raise HyperFormerError(
            f"{task}: {column.name!r} has values that are no numbers, such as {column.other!r}; expected numbers for a "
            f"regression. Fix the values, or use --kind '{task}=classification'."
        )
    values = sorted(map(Decimal, column.values))
    draft.grid = choices.scale or _find_grid(values)
    if draft.grid is None:
        raise HyperFormerError(
            f"{task}: the label {column.name!r} has {count_values(column)} different numbers, on no scale of at most "
            f"{MAX_GRID} steps; expected a scale, to whose numbers they are rounded. Set it, such as "
            f"--scale '{task}={_propose_scale(values)}'."
        )
    low, high, step = draft.grid
    if values and not Decimal(low) <= values[0] <= values[-1] <= Decimal(high):
        raise HyperFormerError(
            f"{task}: the label {column.name!r} has numbers from {values[0]} to {values[-1]}; expected numbers on the "
            f"scale from {low} to {high}. Change --scale."
        )
    draft.kind, draft.metrics = "regression", ["pearson", "spearman"]
    draft.lines.append(f"label: {column.name}, a number from {low} to {high} in steps of {step} (--scale, --kind)")
    _draft_splits(draft, "hold_out", min(draft.rows["train"], column.filled))


def _propose_scale(values: Sequence[Decimal]) -> str:
    """Return a scale of about `PROPOSED_STEPS` steps that has all values; without values, an example."""
    if not values:
        return "0:5:0.2"
    raw = max((values[-1] - values[0]) / PROPOSED_STEPS, Decimal("1e-9"))
    power = Decimal(1).scaleb(raw.adjusted())
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw)
    low, high = (values[0] / step).to_integral_value(ROUND_FLOOR), (values[-1] / step).to_integral_value(ROUND_CEILING)
    return ":".join(format((number * step).normalize(), "f") for number in (low, high, Decimal(1)))


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


def _check_labels(task: str, column: Column, labels: Counter[str], choices: Choices) -> None:
    """Check that the values of a column can be the labels of a classification."""
    if column.distinct > MAX_LABELS:
        raise HyperFormerError(
            f"{task}: the label {column.name!r} has {count_values(column)} different values; expected at most "
            f"{MAX_LABELS}. Choose another column with --label {task}=COLUMN, or group the values."
        )
    if len(labels) < 2:
        raise HyperFormerError(
            f"{task}: the label {column.name!r} has {len(labels)} values in train; expected at least 2. Choose another "
            f"column with --label {task}=COLUMN."
        )
    if column.name in labels:
        raise HyperFormerError(
            f"{task}: the name of the column {column.name!r} is also one of its values; expected names of columns in "
            "the first line. Add a line with names to the file."
        )
    numbers = {Decimal(label) for label in labels if NUMBER.fullmatch(label)}
    unseen = [
        value
        for value in column.values
        if value not in labels and not (NUMBER.fullmatch(value) and Decimal(value) in numbers)
    ]
    if unseen:
        raise HyperFormerError(
            f"{task}: the label {unseen[0]!r} occurs in validation or test, but not in train; expected rows of every "
            "label in train. Add some, or remove the rows."
        )
    for label in (label for merged in choices.merge.values() for label in merged):
        if label not in labels:
            raise HyperFormerError(f"{task}: --merge has the unknown label {label!r}; {suggest_name(label, labels)}")


def _draft_classification(draft: Draft, table: Table, choices: Choices) -> None:
    task, column, labels = draft.files.task, table.columns[draft.label], table.train[draft.label]
    _check_labels(task, column, labels, choices)
    draft.kind, draft.labels, draft.merge = "classification", Counter(dict(sorted(labels.items()))), choices.merge
    sizes = _merge_counts(labels, choices.merge)
    most, least = max(sizes.values()), min(sizes.values())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    draft.lines.append(f"label: {column.name}, {len(sizes)} classes with {each} training rows each (--label, --kind)")
    draft.metrics = ["accuracy", "f1"]
    if most > IMBALANCE * least:
        # F1 of two labels is that of the second, which may be the frequent one
        draft.metrics, name = (["matthews"], "the Matthews correlation") if len(sizes) == 2 else (["f1"], "macro F1")
        draft.lines.append(
            f"imbalance: the most frequent label has {most / least:.0f} times the rows of the least frequent; the "
            f"metric is {name}"
        )
    if len(sizes) < 2:
        raise HyperFormerError(f"{task}: --merge leaves a single answer; expected at least two. Join fewer labels.")
    _warn_of_similar_labels(draft)
    _hold_out_rows(draft, sizes)


def _hold_out_rows(draft: Draft, sizes: Counter[str]) -> None:
    """Choose the splits of a classification, and check that enough rows of each answer stay for training."""
    task, rows = draft.files.task, sum(sizes.values())  # without those of a missing label
    _draft_splits(draft, "stratified", rows)
    share = sum(int(rule.rpartition("_")[2]) for rule in draft.splits.values() if rule.startswith("stratified"))
    kept = 1 - share / rows
    rare = {label: count for label, count in sizes.items() if int(count * kept) < FEWEST_ROWS}
    if len(rare) > len(sizes) / 2:
        raise HyperFormerError(
            f"{task}: the label {draft.label!r} has {len(sizes):,} different values in {_count_rows(rows)}; expected "
            f"at least {FEWEST_ROWS} training rows of each. Choose another column with --label '{task}=COLUMN', or "
            "add rows."
        )
    if rare:
        label, count = next(iter(rare.items()))
        more = f" (and {len(rare) - 1} more labels)" if len(rare) > 1 else ""
        merge = shlex.quote(f"{task}:ANSWER={label},OTHER")
        raise HyperFormerError(
            f"{task}: the label {label!r} has {_count_rows(count)}, of which {int(count * kept)} stay for training"
            f"{more}; expected at least {FEWEST_ROWS}. Add rows, or join labels with --merge {merge}."
        )


def _warn_of_similar_labels(draft: Draft) -> None:
    """Add a line if two labels differ only in case, spaces or the encoding of characters."""
    seen: dict[str, str] = {}
    for label in draft.labels:
        simple = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        if (other := seen.setdefault(simple, label)) != label:
            draft.lines.append(
                f"warning: the labels {other!r} and {label!r} differ only in case, spaces or encoding (--merge)"
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
