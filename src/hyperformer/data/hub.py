"""Read the rows of a dataset on the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from datasets import load_dataset

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.data.storage import BATCH_ROWS
from hyperformer.readers.parquet import list_rows
from hyperformer.readers.texts import Missing, TextRow, check_columns, convert_row
from hyperformer.settings.tasks import SourceSettings


class HubSplit:
    """The rows of a split of a dataset on the Hub; if `source.rows` is set, only these are downloaded.

    Args:
        name: Name of the dataset.
        configuration: Name of its configuration, or None for the default.
        split: Name of the split.
        source: Settings of the source.
        columns: Columns to read.
        missing: Meaning of a value that is null.
    """

    unit = "row"

    def __init__(
        self,
        name: str,
        configuration: str | None,
        split: str,
        source: SourceSettings,
        columns: Sequence[str],
        missing: Missing,
    ) -> None:
        self.columns, self.path = list(columns), f"{name}/{configuration or 'default'}/{split}"
        self._name, self._configuration, self._split = name, configuration, split
        self._source, self._missing = source, missing

    def locate(self, number: int) -> str:
        """Return the location of the row with a number, for messages."""
        return f"{self.path}, row {number}"

    def __iter__(self) -> Iterator[tuple[int, TextRow]]:
        """Yield the texts of each row's columns, with its number."""
        number = 0
        for table in self._load_tables():
            if not number:
                check_columns(self.columns, table.column_names, self.path)
            for row in list_rows(table.select(self.columns)):
                number += 1
                try:
                    texts = convert_row(row, self.columns, self._missing)
                except HyperFormerError as error:
                    raise HyperFormerError(f"{self.locate(number)}: {error}.") from None
                yield number, texts
                if number == self._source.rows:
                    return
        if not number:
            raise HyperFormerError(f"{self.path} has no rows; expected at least one. Use another split.")

    def _load_tables(self) -> Iterator[pa.Table]:
        limit = self._source.rows
        try:
            rows = load_dataset(
                self._name,
                self._configuration,
                split=self._split,
                streaming=limit is not None,
                revision=self._source.revision,
            )
            yield from rows.with_format("arrow").iter(min(limit or BATCH_ROWS, BATCH_ROWS))
        except Exception as error:
            raise HyperFormerError(
                f"cannot load split {self._split!r} of {self._name!r}, configuration "
                f"{self._configuration or 'default'} ({first_line(error)}); expected a local folder, or a dataset on "
                "the Hub or in its cache. Set data.source or the task's source."
            ) from error
