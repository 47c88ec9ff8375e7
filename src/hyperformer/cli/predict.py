"""The command `predict`: answer rows with an exported task."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice

from hyperformer.cli.arguments import (
    Row,
    add_provider_option,
    add_unpublished_option,
    load_bundle,
    parse_positive_integer,
    read_rows,
)
from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.types import Answer
from hyperformer.runtime import Bundle

CHUNK = 256
"""Default number of rows that are read, predicted and written at a time."""


def _write_json(answer: Answer) -> None:
    fields = {key: value for key, value in asdict(answer).items() if value is not None and value is not False}
    print(json.dumps(fields, ensure_ascii=False))


def _make_csv_writer(bundle: Bundle) -> Callable[[Answer], None]:
    labels = bundle.manifest.labels
    probabilities = [f"probability_{label}" for label in labels]  # so that no label has the name of another column
    columns = ["label", *(["value"] if bundle.manifest.numbers else []), *probabilities, "truncated"]
    table = csv.writer(sys.stdout)
    table.writerow(columns)

    def write(answer: Answer) -> None:
        value = [] if answer.value is None else [answer.value]
        table.writerow([answer.label, *value, *(answer.probabilities[label] for label in labels), answer.truncated])

    return write


def _predict(options: argparse.Namespace) -> None:
    bundle = load_bundle(options)
    write = _make_csv_writer(bundle) if options.csv else _write_json
    answered = truncated = 0
    rows = read_rows(options.rows, bundle)
    while chunk := _answer_chunk(bundle, rows, options.chunk):
        for answer in chunk.answers:
            write(answer)
            truncated += answer.truncated
        sys.stdout.flush()
        answered += len(chunk.answers)
        if sys.stderr.isatty():
            print(f"\r{answered} rows", end="", file=sys.stderr)
        if chunk.error:
            raise HyperFormerError(chunk.error + (f" (rows predicted before it: {answered})" if answered else ""))
    if truncated:
        limit = bundle.manifest.max_source_tokens
        print(f"hyperformer: truncated {truncated} of {answered} texts to {limit} tokens", file=sys.stderr)


class _Chunk:
    """Answers of consecutive rows, and the error message of the row after them, if that row failed."""

    def __init__(self, answers: list[Answer], error: str | None) -> None:
        self.answers, self.error = answers, error

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
            return _Chunk(bundle.answer(valid), message)
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
    command.add_argument("--csv", action="store_true", help="write CSV instead of JSONL")
    command.set_defaults(run=_predict)
