"""Arguments that several commands share: bundles and rows."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.readers import READERS, Row, parse_row, read_file, read_jsonl, require_rows
from hyperformer.runtime import Bundle, load


def read_rows(arguments: list[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of JSON objects, of files, and of standard input (`-`), each as soon as it is read."""
    for number, argument in enumerate(arguments, start=1):
        if Path(argument).suffix.lower() in READERS:
            yield from read_file(argument)
        elif argument.lstrip().startswith(("{", "[")):
            yield f"row {number}", parse_row(argument, f"row {number}")
        elif argument == "-":
            if sys.stdin is None:
                raise HyperFormerError("standard input is closed; expected rows in JSONL. Use a file instead.")
            file = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")
            yield from require_rows(read_jsonl(file, "standard input"), "standard input")
        else:
            raise HyperFormerError(
                f"got {argument!r}; expected rows as a JSON object, a .jsonl or .csv file, or - for standard input"
            )


def load_bundle(options: argparse.Namespace) -> Bundle:
    """Load the bundle of a command, which must be a single task."""
    bundle = load(options.bundle, precision="int8" if options.int8 else "float32")
    if not isinstance(bundle, Bundle):
        raise HyperFormerError(
            f"{options.bundle} contains the tasks {', '.join(bundle)}; expected one task. Use the folder of a single "
            "task."
        )
    return bundle


def missing_extra_error(command: str, error: ImportError, extra: str) -> HyperFormerError:
    """Return the error for a command whose extra is not installed."""
    return HyperFormerError(
        f"{command} requires {error.name}, which is not installed. Install hyperformer with the extra '{extra}'."
    )
