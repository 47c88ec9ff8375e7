"""The files of a bundle: each is read once, compared with its checksum, and used as it was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from hyperformer import manifest, text
from hyperformer.manifest import Base, Manifest
from hyperformer.types import HyperFormerError, RowError

LONGEST = 1 << 20  # largest max_source_tokens of a manifest, in tokens
Contents = dict[str, bytes]
"""The bytes of files, by their path in the folder."""
R = TypeVar("R")
T = TypeVar("T")
D = TypeVar("D", Manifest, Base)


def read_bundle(
    folder: Path, wanted: Callable[[Manifest], Sequence[str]] = lambda description: ()
) -> tuple[Manifest, Contents]:
    """Read a bundle's manifest, verify all of its files, and keep the bytes of some.

    Args:
        wanted: names the files to keep, of those that the manifest lists.
    Raises:
        HyperFormerError: the folder is no bundle, or a file is missing, not listed, or not the one that was exported.
    """

    def required(description: Manifest) -> list[str]:
        return (
            [manifest.GRAPH, manifest.TOKENIZER]
            if description.labels and manifest.ADAPTER not in description.files
            else []
        )

    return _read(folder, described, manifest.FILE, required, wanted)


def read_base(folder: Path, wanted: Callable[[Base], Sequence[str]] = lambda description: ()) -> tuple[Base, Contents]:
    """Read what a folder says of its base, verify the base's files, and keep the bytes of some.

    Args:
        wanted: names the files to keep, of those that are listed.
    Raises:
        HyperFormerError: there is no base, or a file is missing, not listed, or not the one that was exported.
    """
    return _read(
        folder,
        lambda place: tried(lambda: manifest.read_base(place), f"{place} has no base"),
        manifest.BASE,
        lambda _: [manifest.GRAPH, manifest.TOKENIZER],
        wanted,
    )


def _read(
    folder: Path,
    describe: Callable[[Path], D],
    source: str,
    required: Callable[[D], Sequence[str]],
    wanted: Callable[[D], Sequence[str]],
) -> tuple[D, Contents]:
    def attempt() -> tuple[D, Contents]:
        description = describe(folder)
        for name in required(description):
            if name not in description.files:
                raise HyperFormerError(f"{folder / source} does not list {name}; export the task again")
        names = wanted(description)
        read = tried(
            lambda: manifest.verify(folder, description.files, names), f"the bundle {folder} cannot be checked"
        )
        return description, read

    try:
        return attempt()
    except HyperFormerError:  # the folder may have been replaced between two of its files
        return attempt()


def described(folder: Path) -> Manifest:
    """Read the manifest of a bundle, and refuse one that contradicts itself.

    Raises:
        HyperFormerError: the folder is no bundle, or its manifest contradicts itself.
    """
    description = tried(lambda: manifest.read(folder), f"{folder} is no bundle")
    labels, numbers = description.labels, description.numbers
    wrong = [
        name
        for name, right in {
            "text": isinstance(description.text, str) or [type(part) for part in description.text] == [str, str],
            "labels": all(isinstance(label, str) for label in labels) and len(set(labels)) == len(labels) != 1,
            "numbers": numbers is None
            or (len(numbers) == len(labels) and all(type(number) in (int, float) for number in numbers)),
            "max_source_tokens": type(description.max_source_tokens) is int
            and 0 < description.max_source_tokens <= LONGEST,
            "files": all(isinstance(sha256, str) for sha256 in description.files.values()),
            **{
                name: all(type(value) in (int, float) for value in getattr(description, name).values())
                for name in ("metrics", "parity", "int8")
            },
        }.items()
        if not right
    ]
    if wrong:
        raise HyperFormerError(
            f"{folder / manifest.FILE} has {wrong[0]!r} that cannot be, {getattr(description, wrong[0])!r:.80}; export "
            "the task again"
        )
    text.columns(description.text)
    return description


def graph_name(folder: Path, description: Manifest, int8: bool) -> str:
    """Return the file name of a bundle's classifier graph, in float32 or int8.

    Raises:
        HyperFormerError: there is none.
    """
    graph = manifest.INT8 if int8 else manifest.GRAPH
    if manifest.ADAPTER in description.files:
        raise HyperFormerError(f"{folder} is on a shared base: export a bundle of its own")
    if not description.labels:
        raise HyperFormerError(
            f"the task {description.task!r} writes texts: load {folder / manifest.GENERATION} with optimum's "
            "ORTModelForSeq2SeqLM, as its README.md shows"
        )
    if graph not in description.files:
        why = (
            f": its metric fell by {description.int8['float32'] - description.int8['metric']:.2f} points"
            if description.int8
            else ""
        )
        raise HyperFormerError(f"{folder} holds no {graph}{why}; use the graph in float32")
    return graph


def graph_files(graph: str, listed: Iterable[str]) -> list[str]:
    """Return the names of the files of a graph: its own, and those beside it with the constants of a large one."""
    return [graph, *(name for name in listed if name.startswith(f"{graph}."))]


def is_fault(error: BaseException) -> bool:
    """Tell faults from requests to stop; a panic of a Rust library is no `Exception`, and its class has no name."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says of a fault, or the fault's kind."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def tried(work: Callable[[], T], what: str) -> T:
    """What `work` gives; a fault of file or library as a sentence."""
    try:
        return work()
    except HyperFormerError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        raise HyperFormerError(
            f"{what} ({first_line(error)}); give the folder of an exported task, or export it again"
        ) from None


def on_rows(work: Callable[[Sequence[R]], T], rows: Sequence[R], what: str) -> T:
    """Run a library's work on rows; where it fails, look for the first row on which it fails alone.

    Args:
        what: what cannot be done, for messages.
    Raises:
        RowError: the work fails on a row.
        HyperFormerError: the work fails, but on no row alone.
    """
    try:
        return work(rows)
    except BaseException as error:
        if not is_fault(error):
            raise
        fault = error
    for number, row in enumerate(rows):
        try:
            work([row])
        except BaseException as error:
            if not is_fault(error):
                raise
            raise RowError(number, f"{what} ({first_line(error)}). Change the row, or export the task again.") from None
    raise HyperFormerError(f"{what} ({first_line(fault)}). Ask fewer rows at once, or export the task again.")
