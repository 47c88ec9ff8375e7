"""The `hyperformer` command: predict answers with exported tasks, and inspect, verify, convert and serve tasks.

Exit codes: 0 for success, 1 for an error that is printed to stderr, 2 for an invalid command line, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from hyperformer import manifest, text
from hyperformer.runtime import Bundle, load
from hyperformer.runtime.files import read_base, read_bundle, read_valid_manifest
from hyperformer.runtime.router import find_bundles
from hyperformer.runtime.triton import write_repository
from hyperformer.types import Answer, HyperFormerError, RowError

Row = Mapping[str, Any]
CHUNK = 256
"""Default number of rows that are read, predicted and written at a time."""
MEGABYTE = 1e6
"""Number of bytes in a megabyte."""


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, and refuse duplicate keys."""
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        duplicate = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"duplicate key {duplicate!r}")
    return parsed


def _parse_row(line: str, location: str) -> Row:
    try:
        row = json.loads(line, object_pairs_hook=_parse_object)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
        raise HyperFormerError(
            f"{location} is not valid JSON ({reason}): {line.strip()[:80]!r}; expected an object such as "
            '\'{"sentence": "…"}\''
        ) from None
    if not isinstance(row, dict):
        raise HyperFormerError(
            f'{location} is not a JSON object: {line[:80]!r}; expected an object such as \'{{"sentence": "…"}}\''
        )
    return row


def _read_jsonl(file: TextIO, name: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a JSONL file, each with its location."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            location = f"{name}, line {number}"
            yield location, _parse_row(line, location)


def _read_csv(file: TextIO, name: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a CSV file with a header, each with the location of its last line; a missing field is None."""
    csv.field_size_limit(sys.maxsize)
    table = csv.DictReader(file, strict=True)
    try:
        header = list(table.fieldnames or [])
        duplicates = sorted({column for column in header if header.count(column) > 1})
        if duplicates:
            raise HyperFormerError(
                f"{name}: duplicate column {duplicates[0]!r} in the header; expected unique names. Rename one column."
            )
        for row in table:
            location = f"{name}, line {table.line_num}"
            if None in row:
                raise HyperFormerError(
                    f"{location}: more fields than columns in the header. Quote texts that contain commas."
                )
            yield location, row
    except csv.Error as error:
        raise HyperFormerError(
            f"{name}, after line {table.line_num}: invalid CSV ({error}). Fix the quotes there."
        ) from None


def _read_rows(arguments: list[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of JSON objects, of files, and of standard input (`-`), each as soon as it is read."""
    for number, argument in enumerate(arguments, start=1):
        if Path(argument).suffix.lower() in READERS:
            yield from _read_file(argument)
        elif argument.lstrip().startswith(("{", "[")):
            yield f"row {number}", _parse_row(argument, f"row {number}")
        elif argument == "-":
            if sys.stdin is None:
                raise HyperFormerError("standard input is closed; expected rows in JSONL. Use a file instead.")
            file = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")
            yield from _require_rows(_read_jsonl(file, "standard input"), "standard input")
        else:
            raise HyperFormerError(
                f"got {argument!r}; expected rows as a JSON object, a .jsonl or .csv file, or - for standard input"
            )


def _read_file(name: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file; bytes that are not UTF-8 become surrogates, which the check of each row refuses."""
    try:
        with Path(name).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _require_rows(READERS[Path(name).suffix.lower()](file, name), name)
    except OSError as error:
        raise HyperFormerError(f"cannot read {name} ({error.strerror}); expected a file of rows in UTF-8") from None


def _require_rows(rows: Iterator[tuple[str, Row]], name: str) -> Iterator[tuple[str, Row]]:
    """Yield rows, and raise an error if there are none."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise HyperFormerError(f"{name} contains no rows; expected at least one")


READERS: dict[str, Callable[[TextIO, str], Iterator[tuple[str, Row]]]] = {".jsonl": _read_jsonl, ".csv": _read_csv}


def _write_json(answer: Answer) -> None:
    fields = {key: value for key, value in asdict(answer).items() if value is not None and value is not False}
    print(json.dumps(fields, ensure_ascii=False))


def _make_csv_writer(bundle: Bundle) -> Callable[[Answer], None]:
    labels = bundle.manifest.labels
    columns = ["label", *(["value"] if bundle.manifest.numbers else []), *labels, "truncated"]
    table = csv.writer(sys.stdout)
    table.writerow(columns)

    def write(answer: Answer) -> None:
        value = [] if answer.value is None else [answer.value]
        table.writerow([answer.label, *value, *(answer.probabilities[label] for label in labels), answer.truncated])

    return write


def _predict(options: argparse.Namespace) -> None:
    bundle = _load_bundle(options)
    write = _make_csv_writer(bundle) if options.csv else _write_json
    answered = truncated = 0
    rows = _read_rows(options.rows)
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


def _load_bundle(options: argparse.Namespace) -> Bundle:
    bundle = load(options.bundle, precision="int8" if options.int8 else "float32")
    if not isinstance(bundle, Bundle):
        raise HyperFormerError(
            f"{options.bundle} contains the tasks {', '.join(bundle)}; expected one task. Use the folder of a single "
            "task."
        )
    return bundle


def _parse_positive_integer(argument: str) -> int:
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"got {argument!r}; expected a positive integer")
    return int(argument)


def _find_bundles(options: argparse.Namespace) -> list[Path]:
    """Return the bundles in the folder, or the folder itself if it is a bundle or has no bundles."""
    folder = Path(options.bundle)
    bundles = find_bundles(folder)
    return [folder] if (folder / manifest.MANIFEST).exists() or not bundles else bundles


def _inspect(options: argparse.Namespace) -> None:
    base = Path(options.bundle)
    if (base / manifest.BASE).is_file():
        files = read_base(base)[0].files
        print(f"shared base of all tasks\n  {'files':12s}  {_format_files(base, files)}")
    for folder in _find_bundles(options):
        description = read_valid_manifest(folder)
        missing = [name for name in description.files if not (folder / name).is_file()]
        lines = {
            "kind": description.kind,
            "text": text.format_template(description.text),
            "answers": ", ".join(description.labels) or "any text",
            "longest text": f"{description.max_source_tokens} tokens",
            "backbone": description.backbone,
            "method": description.method,
            "metrics": ", ".join(f"{name} {value:.2f}" for name, value in description.metrics.items()),
            "parity": ", ".join(f"{name} {value:g}" for name, value in description.parity.items()),
            "files": _format_files(folder, description.files),
            **({"missing": ", ".join(missing)} if missing else {}),
        }
        print(description.task)
        for name, value in lines.items():
            print(f"  {name:12s}  {value}")


def _format_files(folder: Path, files: Iterable[str]) -> str:
    """Return the names of files and the total size of those that exist."""
    size = 0
    for name in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            size += (folder / name).stat().st_size
    return f"{', '.join(files)} ({size / MEGABYTE:.1f} MB)"


def _verify(options: argparse.Namespace) -> None:
    errors = []
    base = Path(options.bundle)
    if (base / manifest.BASE).is_file():
        try:
            print(f"base: {len(read_base(base)[0].files)} files match their checksums")
        except HyperFormerError as error:
            errors.append(str(error))
    for folder in _find_bundles(options):
        try:
            bundle, _ = read_bundle(folder)
            unlisted = manifest.unlisted_files(folder, bundle)
            if unlisted:
                raise HyperFormerError(
                    f"{folder} contains {', '.join(unlisted)}, which its manifest does not list. Remove unlisted files."
                )
            print(f"{bundle.task}: {len(bundle.files)} files match their checksums")
        except HyperFormerError as error:
            errors.append(str(error))
    if errors:
        raise HyperFormerError("; ".join(error.rstrip(".") for error in errors))


def _triton(options: argparse.Namespace) -> None:
    names = write_repository(_find_bundles(options), options.repository, options.int8)
    print(f"{options.repository}: {len(names)} models, {', '.join(names)}")


def _strings(options: argparse.Namespace) -> None:
    try:
        from hyperformer.string_graph import write_string_graph
    except ImportError as error:
        raise _missing_extra_error("hyperformer strings", error, "strings") from None
    if options.graph.suffix != ".onnx" or not options.graph.parent.is_dir():
        raise HyperFormerError(
            f"cannot write {options.graph}; expected a file name that ends in .onnx, in an existing folder"
        )
    rows = _check_rows(_load_bundle(options), options.rows)
    written = write_string_graph(Path(options.bundle), options.graph, rows, options.int8)
    print(
        f"{options.graph}: {', '.join(written.columns)} -> {', '.join(written.outputs)}; tokens and answers match the "
        f"bundle's on {written.rows} rows"
    )


def _check_rows(bundle: Bundle, arguments: list[str]) -> Iterator[Row]:
    """Yield rows that have the columns of the task; an error names the location of the row."""
    for location, row in _read_rows(arguments):
        try:
            bundle.source(row)
        except HyperFormerError as error:
            raise HyperFormerError(f"{location}: {error}") from None
        yield row


def _missing_extra_error(command: str, error: ImportError, extra: str) -> HyperFormerError:
    return HyperFormerError(
        f"{command} requires {error.name}, which is not installed. Install hyperformer with the extra '{extra}'."
    )


SERVE_OPTIONS = {
    "host": "set the address to bind to",
    "port": "set the port to bind to; 0 selects a free port",
    "allowed-hosts": "accept these names in the Host header, separated by commas; * accepts any name; required unless "
    "--host is a loopback address",
    "threads": "set the number of threads of ONNX Runtime",
    "batch": "set the maximum number of rows in a batch; 1 disables batching",
    "queue": "set the maximum number of rows in the queue",
    "rows": "set the maximum number of rows in a request",
    "body-bytes": "set the maximum size of a request body, in bytes",
    "text-bytes": "set the maximum size of a text, in bytes",
    "poll-seconds": "set the interval at which the folder is checked for changed tasks, in seconds; 0 disables it",
    "shutdown-seconds": "set the time limit for finishing accepted requests after a signal to stop, in seconds",
}


def _split_names(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))


OPTION_TYPES: dict[str, Callable[[str], Any]] = {"host": str, "allowed-hosts": _split_names, "poll-seconds": float}
"""Types of the options in `SERVE_OPTIONS` that are not integers."""


def _add_serve_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("root", type=Path, help="folder of exported tasks, as bundles or on a shared base")
    command.add_argument("--int8", action="store_true", help="use the int8 graphs")
    for name, description in SERVE_OPTIONS.items():
        command.add_argument(f"--{name}", type=OPTION_TYPES.get(name, int), default=argparse.SUPPRESS, help=description)
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # before the server handles signals, and after it has stopped
    try:
        from hyperformer.server import ServerSettings, run
    except ModuleNotFoundError as error:
        raise _missing_extra_error("hyperformer serve", error, "serve") from None
    logging.basicConfig(level=logging.INFO, format="%(levelname)s  %(message)s", stream=sys.stderr)
    names = [name.replace("-", "_") for name in SERVE_OPTIONS]
    settings = {name: vars(options)[name] for name in names if name in options}
    run(ServerSettings(options.root, precision="int8" if options.int8 else "float32", **settings))


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="hyperformer",
        description="Predict answers with exported HyperFormer tasks, and inspect, verify, convert and serve tasks.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="predict the answers of rows with an exported task")
    predict.add_argument("bundle", help="folder of an exported task")
    predict.add_argument(
        "rows", nargs="+", help="a JSON object, a .jsonl or .csv file, or - for JSONL on standard input"
    )
    predict.add_argument("--int8", action="store_true", help="use the int8 graph")
    predict.add_argument(
        "--chunk",
        type=_parse_positive_integer,
        default=CHUNK,
        help="set the number of rows that are read and predicted at a time (default: %(default)s); 1 predicts each row "
        "as soon as it is read",
    )
    predict.add_argument("--csv", action="store_true", help="write CSV instead of JSONL")
    predict.set_defaults(run=_predict)
    for name, run, description in (
        ("inspect", _inspect, "describe an exported task, or each task of a folder"),
        ("verify", _verify, "compare the files of exported tasks with their checksums"),
    ):
        command = commands.add_parser(name, help=description)
        command.add_argument("bundle", help="folder of an exported task, or of several tasks")
        command.set_defaults(run=run)
    triton = commands.add_parser("triton", help="write a model repository for Triton Inference Server")
    triton.add_argument("bundle", help="folder of an exported task, or of several tasks")
    triton.add_argument("repository", type=Path, help="folder to write; it must be empty or not exist")
    triton.add_argument("--int8", action="store_true", help="use the int8 graphs")
    triton.set_defaults(run=_triton)
    strings = commands.add_parser("strings", help="write a task as one ONNX graph that includes its tokenizer")
    strings.add_argument("bundle", help="folder of an exported task")
    strings.add_argument("graph", type=Path, help="file to write; its name must end in .onnx")
    strings.add_argument(
        "rows",
        nargs="*",
        help="rows on which the graph's answers are compared with the task's, in the formats of predict",
    )
    strings.add_argument("--int8", action="store_true", help="use the int8 graph")
    strings.set_defaults(run=_strings)
    _add_serve_options(
        commands.add_parser("serve", help="serve tasks over HTTP with the Open Inference Protocol, version 2")
    )
    options = parser.parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except HyperFormerError as error:
        print(f"hyperformer: {error}", file=sys.stderr)
        return 1
    except UnicodeEncodeError as error:
        print(
            f"hyperformer: the output is in {error.encoding}, which has no {error.object[error.start]!r}; expected "
            "UTF-8. Set PYTHONIOENCODING=utf-8, or a UTF-8 locale, and run again.",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # the reader stopped early, such as `head`
        _discard_stdout()
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            print(
                f"hyperformer: {error.filename}: {error.strerror}. Check the path and its permissions.", file=sys.stderr
            )
            return 1
        if sys.stdout is not None and not isinstance(error, OSError):
            raise
        print(f"hyperformer: cannot write the answers ({error})", file=sys.stderr)
        _discard_stdout()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _discard_stdout() -> None:
    """Redirect standard output to the null device, as Python would write the buffer again at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
