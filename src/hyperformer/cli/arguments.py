"""Arguments that several commands share: bundles and rows."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
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


def read_rows(arguments: list[str], bundle: Bundle, keep: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """Yield the rows of JSON objects, of files, and of standard input (`-`), each as soon as it is read.

    Args:
        arguments: the rows, as they are on the command line.
        bundle: the task.
        keep: further columns to read; a value that is null or missing is None.

    Yields:
        The location of a row, for messages, and the values of the columns of the bundle's text and of `keep`.
    """
    columns, missing = text.find_columns(bundle.manifest.text), bundle.manifest.missing
    names = list(dict.fromkeys([*columns, *keep]))
    for number, argument in enumerate(arguments, start=1):
        if is_row_file(argument):
            file = RowFile(Path(argument), columns, missing, optional=keep)
            for line, texts in file:
                yield file.locate(line), dict(zip(names, texts, strict=True))
        elif argument.lstrip().startswith(("{", "[")):
            row = _parse_argument(argument, names, f"row {number}")
            yield f"row {number}", {**dict.fromkeys(keep), **row} if keep else row
        elif argument == "-":
            for line, texts in _read_standard_input(names, missing, set(keep) - set(columns)):
                yield f"{STANDARD_INPUT}, line {line}", dict(zip(names, texts, strict=True))
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


def _read_standard_input(
    columns: list[str], missing: Missing, optional: Container[str]
) -> Iterator[tuple[int, TextRow]]:
    if sys.stdin is None:
        raise HyperFormerError("standard input is closed; expected rows in JSONL. Use a file instead.")
    file = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    try:
        rows = read_jsonl(file, STANDARD_INPUT, columns, missing, optional=optional)
        first = next(rows, None)
        if first is None:
            raise HyperFormerError(f"{STANDARD_INPUT} has no rows; expected at least one")
        yield first
        yield from rows
    finally:
        file.detach()  # it would close standard input


def list_columns(arguments: list[str]) -> list[str]:
    """Return the columns that all files and JSON objects have.

    Raises:
        HyperFormerError: the rows are on standard input.
    """
    columns: list[str] | None = None
    for argument in arguments:
        if is_row_file(argument):
            names = RowFile(Path(argument), []).list_columns()
        elif argument == "-":
            raise HyperFormerError("the columns of standard input are not known; expected their names in --keep.")
        else:
            names = list(parse_row(argument, []))
        columns = names if columns is None else [name for name in columns if name in names]
    return columns or []


def count_rows(arguments: list[str]) -> int | None:
    """Return about how many rows the arguments have: lines of text files; None if that is not known quickly."""
    total = 0
    for argument in arguments:
        if not is_row_file(argument):
            if argument == "-":
                return None
            total += 1
        elif argument.lower().endswith(".gz"):
            return None
        elif argument.lower().endswith(".parquet"):
            from pyarrow import parquet

            with parquet.ParquetFile(argument) as file:
                total += file.metadata.num_rows
        else:
            with Path(argument).open("rb") as lines:
                total += sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))
    return total


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
