"""Statistics of the columns of a task's files, from which its settings are guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Split
from hyperformer.readers import RowFile, TextRow

MAX_VALUES = 5000
"""Number of different values of a column above which they are no longer counted."""
MAX_SHOWN = 40
"""Maximum number of characters of a value that is shown."""
TEXT_WORDS = 3.0
"""A column with at least this mean number of words is text."""
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")


@dataclass
class Column:
    """Counts over the values of a column, in the files of all splits.

    Attributes:
        name: the name of the column.
        rows: number of rows.
        empty: number of values that are null, missing, or have no characters but spaces.
        word_count: number of words.
        characters: number of characters.
        numbers: number of values that are numbers.
        dates: number of values that are dates.
        missing: number of values that are null or missing.
        other: the first value that is not a number.
        values: number of rows with each value; empty if there are more than `MAX_VALUES` values.
        distinct: number of different values, or `MAX_VALUES` + 1 if there are more.
    """

    name: str
    rows: int = 0
    empty: int = 0
    word_count: int = 0
    characters: int = 0
    numbers: int = 0
    dates: int = 0
    missing: int = 0
    other: str = ""
    values: Counter[str] = field(default_factory=Counter)
    distinct: int = 0

    def add(self, text: str | None) -> None:
        """Count a value."""
        self.rows += 1
        self.missing += text is None
        if text is None or not text.strip():
            self.empty += 1
            return
        self.word_count += len(text.split())
        self.characters += len(text)
        if NUMBER.fullmatch(text):
            self.numbers += 1
        else:
            self.other = self.other or text[:MAX_SHOWN]
        self.dates += DATE.fullmatch(text) is not None
        if self.distinct <= MAX_VALUES:
            self.values[text] += 1
            self.distinct = len(self.values)
            if self.distinct > MAX_VALUES:
                self.values.clear()

    @property
    def filled(self) -> int:
        """Number of values that are not empty."""
        return self.rows - self.empty

    @property
    def is_number(self) -> bool:
        """Return whether all values are numbers."""
        return bool(self.filled) and self.numbers == self.filled

    @property
    def is_date(self) -> bool:
        """Return whether all values are dates."""
        return bool(self.filled) and self.dates == self.filled

    @property
    def differs(self) -> bool:
        """Return whether nearly every row has another value."""
        return self.distinct > min(0.9 * self.filled, MAX_VALUES)

    @property
    def is_text(self) -> bool:
        """Return whether the values are texts."""
        if not self.filled or self.is_number or self.is_date:
            return False
        is_wordy = self.word_count >= TEXT_WORDS * self.filled
        has_spaces = self.word_count > 1.2 * self.filled
        return is_wordy or (has_spaces and self.distinct > 0.5 * min(self.filled, MAX_VALUES))

    @property
    def is_identifier(self) -> bool:
        """Return whether the values identify rows: nearly every row has another value, which is no text."""
        return self.differs and not self.is_text


@dataclass(frozen=True)
class Table:
    """The columns of a task, in the order of its train file, and the number of rows of each split.

    Attributes:
        columns: statistics over all splits, by name.
        train: the counts of values in train alone, by column.
        rows: number of rows of each split.
    """

    columns: Mapping[str, Column]
    train: Mapping[str, Counter[str]]
    rows: Mapping[Split, int]


def read_table(task: str, files: Mapping[Split, Path]) -> Table:
    """Read all rows of a task's files.

    Raises:
        HyperFormerError: a file cannot be read exactly, or a split has no column of the train file.
    """
    names = RowFile(files["train"], []).list_columns()
    for file in files.values():
        present = RowFile(file, []).list_columns()
        names = [name for name in names if name in present]
    if len(names) < 2:
        got = f"the column {names[0]!r} alone" if names else "no column"
        shared = " that all files have" if len(files) > 1 else ""
        raise HyperFormerError(
            f"{task} has {got} with texts, numbers or booleans{shared}; expected at least a text and a label. Check "
            "the names in the first line and the character between the cells, or convert other types to texts."
        )
    if any(name.lstrip().startswith("{") for name in names):
        raise HyperFormerError(
            f"the first line of {files['train']} begins with a brace, as in JSONL; expected names of columns. Rename "
            "the file to .jsonl, or add a line with names."
        )
    columns = {name: Column(name) for name in names}
    rows: dict[Split, int] = {}
    train: dict[str, Counter[str]] = {}
    for split, file in files.items():
        rows[split] = _count(RowFile(file, names, "drop"), columns)
        if split == "train":
            train = {name: Counter(column.values) for name, column in columns.items()}
    return Table(columns, train, rows)


def _count(rows: Iterable[tuple[int, TextRow]], columns: Mapping[str, Column]) -> int:
    """Count the values of rows in the columns, and return the number of rows."""
    count = 0
    for _, texts in rows:
        count += 1
        for column, text in zip(columns.values(), texts, strict=True):
            column.add(text)
    return count
