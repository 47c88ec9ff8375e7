"""The `hyperformer` command: rows to answers, and what a bundle is, at the shell.

Exit codes: 0, all is well; 1, a mistake that the sentence on stderr names; 2, the command line itself.
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
from hyperformer.runtime.files import described, read_base, read_bundle
from hyperformer.runtime.router import places
from hyperformer.runtime.triton import write_repository
from hyperformer.types import Answer, HyperFormerError, RowError

Row = Mapping[str, Any]
CHUNK = 256  # rows that are read, answered and written at once, unless told otherwise
MEGABYTE = 1e6


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys may not stand twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _object(words: str, where: str) -> Row:
    try:
        row = json.loads(words, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
        raise HyperFormerError(
            f'{where} is not JSON ({reason}): {words.strip()[:80]!r}; write it like \'{{"sentence": "…"}}\''
        ) from None
    if not isinstance(row, dict):
        raise HyperFormerError(f'{where} is not a JSON object: {words[:80]!r}; write it like \'{{"sentence": "…"}}\'')
    return row


def _lines(file: TextIO, name: str) -> Iterator[tuple[str, Row]]:
    """Rows of JSONL, each with its place."""
    for number, words in enumerate(file, start=1):
        if words.strip():
            place = f"{name}, line {number}"
            yield place, _object(words, place)


def _table(file: TextIO, name: str) -> Iterator[tuple[str, Row]]:
    """Rows of CSV with a header, each with its place (a record's last line); a cell that a line lacks is None."""
    csv.field_size_limit(sys.maxsize)
    table = csv.DictReader(file, strict=True)
    try:
        header = list(table.fieldnames or [])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise HyperFormerError(f"{name}: the column {twice[0]!r} stands twice in the header; rename one")
        for row in table:
            place = f"{name}, line {table.line_num}"
            if None in row:
                raise HyperFormerError(f"{place}: more cells than the header has; put texts with commas in quotes")
            yield place, row
    except csv.Error as error:
        raise HyperFormerError(
            f"{name}, after line {table.line_num}: no CSV ({error}); mend the quotes there"
        ) from None


def _rows(given: list[str]) -> Iterator[tuple[str, Row]]:
    """The rows of JSON objects, of files, and of standard input (`-`), as they come."""
    for number, words in enumerate(given, start=1):
        if Path(words).suffix.lower() in READERS:
            yield from _file(words)
        elif words.lstrip().startswith(("{", "[")):
            yield f"the row {number}", _object(words, f"the row {number}")
        elif words == "-":
            if sys.stdin is None:
                raise HyperFormerError("there is no standard input to read; give a file")
            file = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")
            yield from _some(_lines(file, "standard input"), "standard input")
        else:
            raise HyperFormerError(
                f"{words!r} is neither a JSON object, a .jsonl or .csv file, nor - for standard input; give one"
            )


def _file(name: str) -> Iterator[tuple[str, Row]]:
    """The rows of a file; bytes that are no UTF-8 become characters that are none, which the row's own check names."""
    try:
        with Path(name).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _some(READERS[Path(name).suffix.lower()](file, name), name)
    except OSError as error:
        raise HyperFormerError(f"{name} cannot be read ({error.strerror}); give a file of rows in UTF-8") from None


def _some(rows: Iterator[tuple[str, Row]], name: str) -> Iterator[tuple[str, Row]]:
    """These rows, at least one."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise HyperFormerError(f"{name} holds no rows; expected at least one")


READERS: dict[str, Callable[[TextIO, str], Iterator[tuple[str, Row]]]] = {".jsonl": _lines, ".csv": _table}


def _write_json(answer: Answer) -> None:
    shown = {key: value for key, value in asdict(answer).items() if value is not None and value is not False}
    print(json.dumps(shown, ensure_ascii=False))


def _csv_writer(bundle: Bundle) -> Callable[[Answer], None]:
    labels = bundle.manifest.labels
    columns = ["label", *(["value"] if bundle.manifest.numbers else []), *labels, "truncated"]
    table = csv.writer(sys.stdout)
    table.writerow(columns)

    def write(answer: Answer) -> None:
        value = [] if answer.value is None else [answer.value]
        table.writerow([answer.label, *value, *(answer.probabilities[label] for label in labels), answer.truncated])

    return write


def _predict(given: argparse.Namespace) -> None:
    bundle = _bundle(given)
    write = _csv_writer(bundle) if given.csv else _write_json
    answered = cut = 0
    rows = _rows(given.rows)
    while chunk := _answered(bundle, rows, given.chunk):
        for answer in chunk.answers:
            write(answer)
            cut += answer.truncated
        sys.stdout.flush()
        answered += len(chunk.answers)
        if sys.stderr.isatty():
            print(f"\r{answered} rows", end="", file=sys.stderr)
        if chunk.mistake:
            raise HyperFormerError(chunk.mistake + (f" (rows answered before it: {answered})" if answered else ""))
    if cut:
        longest = bundle.manifest.max_source_tokens
        print(f"hyperformer: {cut} of {answered} texts were longer than {longest} tokens and cut", file=sys.stderr)


class _Chunk:
    """Answers of some rows, and the mistake that ended them."""

    def __init__(self, answers: list[Answer], mistake: str | None) -> None:
        self.answers, self.mistake = answers, mistake

    def __bool__(self) -> bool:
        return bool(self.answers or self.mistake)


def _answered(bundle: Bundle, rows: Iterator[tuple[str, Row]], count: int) -> _Chunk:
    """The answers to the next `count` rows, up to the first that cannot be answered."""
    places: list[str] = []
    good: list[Row] = []
    mistake = None
    try:
        for place, row in islice(rows, count):
            places.append(place)
            bundle.source(row)
            good.append(row)
    except HyperFormerError as error:
        mistake = f"{places[-1]}: {error}" if len(places) > len(good) else str(error)
    while True:
        try:
            return _Chunk(bundle.answer(good), mistake)
        except RowError as error:  # a row before it may fail too
            mistake = f"{places[error.row]}: {error.reason}"
            del good[error.row :]


def _bundle(given: argparse.Namespace) -> Bundle:
    found = load(given.bundle, precision="int8" if given.int8 else "float32")
    if not isinstance(found, Bundle):
        raise HyperFormerError(f"{given.bundle} holds the tasks {', '.join(found)}; give the folder of one")
    return found


def _positive(words: str) -> int:
    if not words.isdecimal() or int(words) < 1:
        raise argparse.ArgumentTypeError(f"got {words!r}, expected a whole number from 1")
    return int(words)


def _places(given: argparse.Namespace) -> list[Path]:
    """The folders of bundles: this one, or those in it."""
    folder = Path(given.bundle)
    inside = places(folder)
    return [folder] if (folder / manifest.FILE).exists() or not inside else inside


def _inspect(given: argparse.Namespace) -> None:
    base = Path(given.bundle)
    if (base / manifest.BASE).is_file():
        files = read_base(base)[0].files
        print(f"base of all tasks\n  {'files':12s}  {_sized(base, files)}")
    for folder in _places(given):
        found = described(folder)
        missing = [name for name in found.files if not (folder / name).is_file()]
        lines = {
            "kind": found.kind,
            "text": text.named(found.text),
            "answers": ", ".join(found.labels) or "any text",
            "longest text": f"{found.max_source_tokens} tokens",
            "backbone": found.backbone,
            "method": found.method,
            "metrics": ", ".join(f"{name} {value:.2f}" for name, value in found.metrics.items()),
            "parity": ", ".join(f"{name} {value:g}" for name, value in found.parity.items()),
            "files": _sized(folder, found.files),
            **({"missing": ", ".join(missing)} if missing else {}),
        }
        print(found.task)
        for name, value in lines.items():
            print(f"  {name:12s}  {value}")


def _sized(folder: Path, files: Iterable[str]) -> str:
    """Return the names of files and the size of those that are there."""
    size = 0
    for name in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            size += (folder / name).stat().st_size
    return f"{', '.join(files)} ({size / MEGABYTE:.1f} MB)"


def _verify(given: argparse.Namespace) -> None:
    mistakes = []
    base = Path(given.bundle)
    if (base / manifest.BASE).is_file():
        try:
            print(f"base: {len(read_base(base)[0].files)} files are the ones that were exported")
        except HyperFormerError as error:
            mistakes.append(str(error))
    for folder in _places(given):
        try:
            bundle, _ = read_bundle(folder)
            foreign = manifest.foreign(folder, bundle)
            if foreign:
                raise HyperFormerError(
                    f"{folder} holds {', '.join(foreign)}, which its manifest does not list; remove it"
                )
            print(f"{bundle.task}: {len(bundle.files)} files are the ones that were exported")
        except HyperFormerError as error:
            mistakes.append(str(error))
    if mistakes:
        raise HyperFormerError("; ".join(mistakes))


def _triton(given: argparse.Namespace) -> None:
    names = write_repository(_places(given), given.repository, given.int8)
    print(f"{given.repository}: {len(names)} models, {', '.join(names)}")


def _strings(given: argparse.Namespace) -> None:
    try:
        from hyperformer.string_graph import write_string_graph
    except ImportError as error:
        raise _lacking("the graph of strings", error, "strings") from None
    if given.graph.suffix != ".onnx" or not given.graph.parent.is_dir():
        raise HyperFormerError(
            f"{given.graph} cannot be written; give a name that ends in .onnx in a folder that is there"
        )
    written = write_string_graph(Path(given.bundle), given.graph, _readable(_bundle(given), given.rows), given.int8)
    print(
        f"{given.graph}: {', '.join(written.columns)} -> {', '.join(written.outputs)}; tokens and answers are the "
        f"bundle's on {written.rows} rows"
    )


def _readable(bundle: Bundle, given: list[str]) -> Iterator[Row]:
    """Rows that have what the task reads; of one that has not, its place is said."""
    for place, row in _rows(given):
        try:
            bundle.source(row)
        except HyperFormerError as error:
            raise HyperFormerError(f"{place}: {error}") from None
        yield row


def _lacking(what: str, error: ImportError, extra: str) -> HyperFormerError:
    return HyperFormerError(
        f"{what} needs {error.name}, which is not installed; install hyperformer with its extra '{extra}'"
    )


SERVE = {
    "host": "the address to listen at",
    "port": "0 for any free one",
    "allowed-hosts": "names that the Host header may hold, by commas; *: any; needed where the host is not loopback",
    "threads": "of onnxruntime",
    "batch": "rows that are answered at once at the most; 1: each for itself",
    "queue": "rows that may wait",
    "rows": "rows of a request at the most",
    "body-bytes": "bytes of a request at the most",
    "text-bytes": "bytes of a text at the most",
    "poll-seconds": "how often the folder is looked at for changed tasks; 0: never",
    "shutdown-seconds": "how long accepted requests may take when the server is told to stop",
}


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(","))


KINDS: dict[str, Callable[[str], Any]] = {"host": str, "allowed-hosts": _names, "poll-seconds": float}


def _serve_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("root", type=Path, help="a folder of exported tasks, of bundles or on a shared base")
    command.add_argument("--int8", action="store_true", help="use the graphs in int8")
    for name, words in SERVE.items():
        command.add_argument(f"--{name}", type=KINDS.get(name, int), default=argparse.SUPPRESS, help=words)
    command.set_defaults(run=_serve)


def _serve(given: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # after the last answer, or before the first
    try:
        from hyperformer.server import ServerSettings, run
    except ModuleNotFoundError as error:
        raise _lacking("the server", error, "serve") from None
    logging.basicConfig(level=logging.INFO, format="%(levelname)s  %(message)s", stream=sys.stderr)
    names = [name.replace("-", "_") for name in SERVE]
    chosen = {name: vars(given)[name] for name in names if name in given}
    run(ServerSettings(given.root, precision="int8" if given.int8 else "float32", **chosen))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; see the module for what it returns."""
    parser = argparse.ArgumentParser(prog="hyperformer", description="Answers from exported HyperFormer tasks.")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="answer rows with an exported task")
    predict.add_argument("bundle", help="the folder of an exported task")
    predict.add_argument(
        "rows", nargs="+", help="a JSON object, a .jsonl or .csv file, or - for JSONL on standard input"
    )
    predict.add_argument("--int8", action="store_true", help="use the graph in int8")
    predict.add_argument(
        "--chunk",
        type=_positive,
        default=CHUNK,
        help="rows that are read and answered at once (%(default)s); 1: as they come",
    )
    predict.add_argument("--csv", action="store_true", help="write CSV instead of JSONL")
    predict.set_defaults(run=_predict)
    for name, run, words in (
        ("inspect", _inspect, "say what a bundle is, or each in a folder"),
        ("verify", _verify, "compare a bundle's files with their checksums"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("bundle", help="the folder of an exported task, or of several")
        command.set_defaults(run=run)
    triton = commands.add_parser("triton", help="write a model repository for Triton Inference Server")
    triton.add_argument("bundle", help="the folder of an exported task, or of several")
    triton.add_argument("repository", type=Path, help="where to; not there yet, or empty")
    triton.add_argument("--int8", action="store_true", help="take the graphs in int8")
    triton.set_defaults(run=_triton)
    strings = commands.add_parser("strings", help="write a task as one graph with its tokenizer inside")
    strings.add_argument("bundle", help="the folder of an exported task")
    strings.add_argument("graph", type=Path, help="the file to write, .onnx")
    strings.add_argument("rows", nargs="*", help="rows to compare its answers on, as of predict")
    strings.add_argument("--int8", action="store_true", help="take the graph in int8")
    strings.set_defaults(run=_strings)
    _serve_options(commands.add_parser("serve", help="answer over HTTP, by the Open Inference Protocol, version 2"))
    given = parser.parse_args(arguments)
    try:
        given.run(given)
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
    except BrokenPipeError:  # who reads has had enough
        _let_go()
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            print(f"hyperformer: {error.filename}: {error.strerror}; see to the place and its rights", file=sys.stderr)
            return 1
        if sys.stdout is not None and not isinstance(error, OSError):
            raise
        print(f"hyperformer: the answers cannot be written ({error})", file=sys.stderr)
        _let_go()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _let_go() -> None:
    """Sends what is left in the buffer of standard output nowhere: at its end, Python would try to write it again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
