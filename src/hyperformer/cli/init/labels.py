"""The choice of the column that has the labels of a task."""

from __future__ import annotations

from collections.abc import Container

from hyperformer.cli.init.columns import MAX_VALUES, Column, Table
from hyperformer.core.errors import HyperFormerError

CLASS_NAMES = (
    "label", "labels", "class", "category", "target", "intent", "sentiment", "topic", "queue", "answer", "y",
)  # fmt: skip
"""Names of columns that are labels where several columns could be."""
NUMBER_NAMES = ("score", "rating", "stars", "similarity", "value", "price")
"""Further such names of columns of numbers."""
MAX_LABELS = 1000
"""Maximum number of labels of a task."""
MAX_CLASS_NUMBERS = 20
"""Labels that are this number of integers or fewer are classes; other numbers are a regression."""
FEWEST_ROWS = 8
"""Minimum number of training rows of a label, after rows are held out."""
MOSTLY_NUMBERS = 0.8
"""Share of numbers above which the other values of a column are named."""


def is_number_scale(column: Column) -> bool:
    """Return whether the values are numbers that are no classes."""
    if not column.is_number:
        return False
    has_fractions = any("." in value and value.rstrip("0")[-1] != "." for value in column.values)
    return has_fractions or column.distinct > MAX_CLASS_NUMBERS


def choose_label(task: str, table: Table, used: Container[str]) -> str:
    """Return the column of the label.

    Args:
        task: the name of the task, for messages.
        table: the columns.
        used: columns of the text, if the command line sets it.

    Raises:
        HyperFormerError: no column, or more than one, may be the label.
    """
    reasons = {name: _reason_against(column, table) for name, column in table.columns.items()}
    candidates = [name for name, reason in reasons.items() if reason is None and name not in used]
    named = [name for name in candidates if _is_named_label(table.columns[name])]
    for names in (named, candidates):
        if len(names) == 1:
            return names[0]
    if candidates:
        raise HyperFormerError(
            f"{task}: the label may be {' or '.join(map(repr, named or candidates))}; expected one column. Set it with "
            f"--label '{task}=COLUMN'."
        )
    listed = "; ".join(f"{name!r} {reason}" for name, reason in reasons.items() if reason)
    raise HyperFormerError(
        f"{task}: no column looks like a label ({listed}); expected a column with at least {FEWEST_ROWS} rows of each "
        f"value, or of numbers on a scale. Add one, or set it with --label '{task}=COLUMN'."
    )


def _is_named_label(column: Column) -> bool:
    name = column.name.lower()
    return name in CLASS_NAMES or (column.is_number and name in NUMBER_NAMES)


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
        if column.differs and not _is_named_label(column):
            return "has another number in nearly every row"
        return None
    if column.numbers > MOSTLY_NUMBERS * column.filled and not column.is_number:
        return f"has numbers, but also {column.other!r}"
    if column.is_identifier:
        return "has another value in nearly every row"
    if column.distinct > min(MAX_LABELS, max(2, table.rows["train"] // FEWEST_ROWS)):
        return f"has {count_values(column)} different values in {table.rows['train']:,} rows"
    return None


def count_values(column: Column) -> str:
    """Return the number of different values of a column in words."""
    return f"more than {MAX_VALUES:,}" if column.distinct > MAX_VALUES else f"{column.distinct:,}"
