"""The command `predict`: answer rows with an exported task."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from hyperformer.cli.answer_files import FORMATS, AnswerFile, Record
from hyperformer.cli.arguments import (
    Row,
    add_provider_option,
    add_unpublished_option,
    count_rows,
    list_columns,
    load_bundle,
    parse_positive_integer,
    read_rows,
)
from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.manifest import MANIFEST
from hyperformer.core.types import Answer
from hyperformer.runtime import Bundle

CHUNK = 1024
"""Default number of rows that are read, predicted and written at a time."""
ALL = "all"
"""Value of `--keep` for all columns."""
Writer = Callable[[Sequence[Row], Sequence[Answer]], None]


def _write_json(rows: Sequence[Row], answers: Sequence[Answer]) -> None:
    for answer in answers:
        fields = {key: value for key, value in asdict(answer).items() if value is not None and value is not False}
        print(json.dumps(fields, ensure_ascii=False))
    sys.stdout.flush()


def _make_csv_writer(bundle: Bundle) -> Writer:
    table = csv.writer(sys.stdout)
    table.writerow(_make_record(bundle, Answer("", dict.fromkeys(bundle.manifest.labels, 0.0), 0.0)))

    def write(rows: Sequence[Row], answers: Sequence[Answer]) -> None:
        table.writerows(_make_record(bundle, answer).values() for answer in answers)
        sys.stdout.flush()

    return write


def _make_record(bundle: Bundle, answer: Answer) -> dict[str, Any]:
    """Return an answer as the columns of a table."""
    labels = bundle.manifest.labels
    return {
        "label": answer.label,
        **({"value": answer.value} if bundle.manifest.numbers else {}),
        # the prefix keeps labels that are also names of columns distinct
        **{f"probability_{label}": answer.probabilities[label] for label in labels},
        "truncated": answer.truncated,
    }


def _predict(options: argparse.Namespace) -> None:
    bundle = load_bundle(options)
    if options.output is None:
        if options.keep:
            raise HyperFormerError("--keep needs a file of answers; expected --output FILE too. Add it.")
        write = _make_csv_writer(bundle) if options.csv else _write_json
        _answer_rows(bundle, options, [], 0, write)
        return
    if options.csv:
        raise HyperFormerError("--csv is for answers on standard output; with --output, the suffix chooses the format.")
    keep = _choose_columns(options, bundle)
    with closing(AnswerFile(options.output, _describe_run(options, bundle, keep), options.chunk)) as file:
        if file.answered:
            print(f"hyperformer: {file.answered:,} rows are answered already in {file.partial}", file=sys.stderr)

        def write_records(rows: Sequence[Row], answers: Sequence[Answer]) -> None:
            records: Iterator[Record] = (
                {**{column: row[column] for column in keep}, **_make_record(bundle, answer)}
                for row, answer in zip(rows, answers, strict=True)
            )
            file.write(records)

        _answer_rows(bundle, options, keep, file.answered, write_records)
        file.complete()


def _choose_columns(options: argparse.Namespace, bundle: Bundle) -> list[str]:
    """Return the columns to keep; they must not be columns of the answers.

    Raises:
        HyperFormerError: a column is also a column of the answers, or all columns of standard input are asked for.
    """
    keep = list_columns(options.rows) if options.keep == ALL else [name for name in options.keep.split(",") if name]
    answers = _make_record(bundle, Answer("", dict.fromkeys(bundle.manifest.labels, 0.0), 0.0))
    if both := [name for name in keep if name in answers]:
        raise HyperFormerError(
            f"the column {both[0]!r} is also a column of the answers; expected other columns in --keep. Name the "
            "columns to keep without it, or rename it in the rows."
        )
    return keep


def _describe_run(options: argparse.Namespace, bundle: Bundle, keep: list[str]) -> dict[str, Any]:
    """Return what the answers depend on."""
    files = [Path(argument) for argument in options.rows if Path(argument).is_file()]
    return {
        "task": hashlib.sha256((bundle.folder / MANIFEST).read_bytes()).hexdigest(),
        "rows": options.rows,
        "bytes": [file.stat().st_size for file in files],
        "keep": keep,
        "int8": options.int8,
        "provider": options.provider,
    }


def _answer_rows(
    bundle: Bundle, options: argparse.Namespace, keep: Sequence[str], answered: int, write: Writer
) -> None:
    """Answer the rows after the first `answered`, chunk by chunk, and report progress on a terminal."""
    rows = read_rows(options.rows, bundle, keep)
    for _ in islice(rows, answered):  # rows of an earlier run
        pass
    progress = _Progress(options.rows, answered)
    truncated, before = 0, answered
    while chunk := _answer_chunk(bundle, rows, options.chunk):
        write(chunk.rows, chunk.answers)
        truncated += sum(answer.truncated for answer in chunk.answers)
        answered += len(chunk.answers)
        progress.show(answered)
        if chunk.error:
            raise HyperFormerError(chunk.error + (f" (rows predicted before it: {answered})" if answered else ""))
    progress.end()
    if truncated:
        limit = bundle.manifest.max_source_tokens
        print(f"hyperformer: truncated {truncated} of {answered - before} texts to {limit} tokens", file=sys.stderr)


class _Progress:
    """Shows on a terminal how many rows are answered, rows per second, and the time that is left."""

    def __init__(self, arguments: list[str], answered: int) -> None:
        self._is_shown = sys.stderr.isatty()
        self._total = count_rows(arguments) if self._is_shown else None
        self._first, self._start = answered, time.monotonic()

    def show(self, answered: int) -> None:
        """Replace the line of progress."""
        if not self._is_shown:
            return
        speed = (answered - self._first) / max(time.monotonic() - self._start, 1e-9)
        line = f"{answered:,} rows, {speed:,.0f} rows/s"
        if self._total and self._total >= answered and speed:
            minutes, seconds = divmod(round((self._total - answered) / speed), 60)
            line = f"{answered:,} of about {self._total:,} rows, {speed:,.0f} rows/s, {minutes}:{seconds:02} left"
        print(f"\r{line:<70}", end="", file=sys.stderr)

    def end(self) -> None:
        """End the line of progress."""
        if self._is_shown:
            print(file=sys.stderr)


class _Chunk:
    """Consecutive rows with their answers, and the error message of the row after them, if that row failed."""

    def __init__(self, rows: list[Row], answers: list[Answer], error: str | None) -> None:
        self.rows, self.answers, self.error = rows, answers, error

    def __bool__(self) -> bool:
        return bool(self.answers or self.error)


def _answer_chunk(bundle: Bundle, rows: Iterator[tuple[str, Row]], count: int) -> _Chunk:
    """Predict the answers of the next `count` rows, up to the first row that fails."""
    locations: list[str] = []
    valid: list[Row] = []
    message = None
    try:
        for location, row in islice(rows, count):
            locations.append(location)
            bundle.source(row)
            valid.append(row)
    except HyperFormerError as error:
        message = f"{locations[-1]}: {error}" if len(locations) > len(valid) else str(error)
    while True:
        try:
            return _Chunk(valid, bundle.answer(valid), message)
        except RowError as error:  # an earlier row may fail too
            message = f"{locations[error.row]}: {error.reason}"
            del valid[error.row :]


def add_predict_command(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `predict`."""
    command.add_argument("bundle", help="folder of an exported task")
    command.add_argument(
        "rows",
        nargs="+",
        help="a JSON object, a file (CSV, TSV, JSONL or Parquet, plain or .gz), or - for JSONL on standard input",
    )
    command.add_argument("--int8", action="store_true", help="use the int8 graph")
    add_provider_option(command)
    add_unpublished_option(command)
    command.add_argument(
        "--chunk",
        type=parse_positive_integer,
        default=CHUNK,
        help="set the number of rows that are read and predicted at a time (default: %(default)s); 1 predicts each row "
        "as soon as it is read",
    )
    command.add_argument("--csv", action="store_true", help="write CSV instead of JSONL to standard output")
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"write a table ({', '.join(f'.{name}' for name in FORMATS)}); a run that was stopped continues",
    )
    command.add_argument(
        "--keep", default="", metavar="COLUMN,COLUMN…", help="columns of the rows to write beside the answers, or all"
    )
    command.set_defaults(run=_predict)
