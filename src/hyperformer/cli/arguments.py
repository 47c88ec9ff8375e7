"""Arguments that several commands share: bundles and rows."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.readers import FORMATS, Missing, RowFile, TextRow, is_row_file, parse_row, read_jsonl
from hyperformer.runtime import Bundle, load
from hyperformer.runtime.bundle import Precision
from hyperformer.runtime.sessions import Provider

Row = Mapping[str, Any]
STANDARD_INPUT = "standard input"


def read_rows(arguments: list[str], bundle: Bundle) -> Iterator[tuple[str, Row]]:
    """Yield the rows of JSON objects, of files, and of standard input (`-`), each as soon as it is read.

    Yields:
        The location of a row, for messages, and the values of the columns of the bundle's text.
    """
    columns, missing = text.find_columns(bundle.manifest.text), bundle.manifest.missing
    for number, argument in enumerate(arguments, start=1):
        if is_row_file(argument):
            file = RowFile(Path(argument), columns, missing)
            for line, texts in file:
                yield file.locate(line), dict(zip(columns, texts, strict=True))
        elif argument.lstrip().startswith(("{", "[")):
            yield f"row {number}", _parse_argument(argument, columns, f"row {number}")
        elif argument == "-":
            for line, texts in _read_standard_input(columns, missing):
                yield f"{STANDARD_INPUT}, line {line}", dict(zip(columns, texts, strict=True))
        else:
            formats = ", ".join(f".{suffix}" for suffix in FORMATS)
            raise HyperFormerError(
                f"got {argument!r}; expected rows as a JSON object, a file ({formats}, plain or .gz), or - for "
                "JSONL on standard input"
            )


def _parse_argument(argument: str, columns: list[str], location: str) -> Row:
    try:
        return parse_row(argument, columns)
    except HyperFormerError as error:
        raise HyperFormerError(f"{location}: {error}") from None


def _read_standard_input(columns: list[str], missing: Missing) -> Iterator[tuple[int, TextRow]]:
    if sys.stdin is None:
        raise HyperFormerError("standard input is closed; expected rows in JSONL. Use a file instead.")
    file = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    try:
        rows = read_jsonl(file, STANDARD_INPUT, columns, missing)
        first = next(rows, None)
        if first is None:
            raise HyperFormerError(f"{STANDARD_INPUT} has no rows; expected at least one")
        yield first
        yield from rows
    finally:
        file.detach()  # it would close standard input


def add_unpublished_option(command: argparse.ArgumentParser) -> None:
    """Add the option `--allow-unpublished`."""
    command.add_argument(
        "--allow-unpublished",
        action="store_true",
        help="also use tasks that are not published, because their models are no better than the majority baseline",
    )


def add_provider_option(command: argparse.ArgumentParser) -> None:
    """Add the option `--provider`."""
    command.add_argument(
        "--provider",
        choices=get_args(Provider),
        default="cpu",
        help="run the graph with onnxruntime on the CPU (cpu, the default) or on a GPU (cuda), or with OpenVINO on the "
        "CPU (openvino)",
    )


def load_bundle(options: argparse.Namespace) -> Bundle:
    """Load the bundle of a command, which must be a single task."""
    precision: Precision = "int8" if options.int8 else "float32"
    provider: Provider = getattr(options, "provider", "cpu")  # `strings` has no such option
    bundle = load(options.bundle, precision=precision, allow_unpublished=options.allow_unpublished, provider=provider)
    if not isinstance(bundle, Bundle):
        raise HyperFormerError(
            f"{options.bundle} contains the tasks {', '.join(bundle)}; expected one task. Use the folder of a single "
            "task."
        )
    return bundle


def check_rows(bundle: Bundle, arguments: list[str]) -> Iterator[Row]:
    """Yield the rows of `read_rows` if they have the columns of the task; an error names the location of the row."""
    for location, row in read_rows(arguments, bundle):
        try:
            bundle.source(row)
        except HyperFormerError as error:
            raise HyperFormerError(f"{location}: {error}") from None
        yield row


def parse_positive_integer(argument: str) -> int:
    """Return the value of an option that must be a positive integer."""
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"got {argument!r}; expected a positive integer")
    return int(argument)


def missing_extra_error(command: str, error: ImportError, extra: str) -> HyperFormerError:
    """Return the error for a command whose extra is not installed."""
    return HyperFormerError(
        f"{command} requires {error.name}, which is not installed. Install hyperformer with the extra '{extra}'."
    )
