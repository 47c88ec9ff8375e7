"""Read the files of a bundle or shared base, verify their checksums, and return the verified bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from hyperformer.core import manifest, text
from hyperformer.core.errors import HyperFormerError, RowError, first_line
from hyperformer.core.manifest import Base, Manifest

LONGEST = 1 << 20
"""Maximum value of `max_source_tokens` in a manifest, in tokens."""
Contents = dict[str, bytes]
"""Bytes of files, by their path in the folder."""
R = TypeVar("R")
T = TypeVar("T")
D = TypeVar("D", Manifest, Base)


def read_bundle(
    folder: Path,
    select: Callable[[Manifest], Sequence[str]] = lambda description: (),
    description: Manifest | None = None,
    allow_unpublished: bool = False,
) -> tuple[Manifest, Contents]:
    """Read a bundle's manifest, verify all of its files, and return the bytes of selected files.

    Args:
        folder: the bundle.
        select: called with the manifest; returns the names of the files whose bytes are returned.
        description: the manifest, if it is not in the folder yet; None: it is read from the folder.
        allow_unpublished: also read a bundle that is not published. A given `description` is always accepted.

    Returns:
        The manifest, and the bytes of the selected files.

    Raises:
        HyperFormerError: the folder is not a bundle, the bundle is not published, a value of the manifest is invalid, a
            file is missing or was changed after the export, or the manifest does not list a required file.
    """

    def required(description: Manifest) -> list[str]:
        return (
            [manifest.GRAPH, manifest.TOKENIZER]
            if description.labels and manifest.ADAPTER not in description.files
            else []
        )

    from_folder = read_valid_manifest if allow_unpublished else _read_published_manifest
    read = from_folder if description is None else lambda _: description
    return _read(folder, read, manifest.MANIFEST, required, select)


def _read_published_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest, and refuse a bundle that is not published."""
    description = read_valid_manifest(folder)
    if not description.published:
        raise HyperFormerError(
            f"{folder} is not published, because the model of task {description.task!r} is no better than the majority "
            "baseline on validation. Train a better model, or allow it with --allow-unpublished on the command line, "
            "or allow_unpublished=True in Python."
        )
    return description


def read_base(folder: Path, select: Callable[[Base], Sequence[str]] = lambda description: ()) -> tuple[Base, Contents]:
    """Read `base.json`, verify the files of the shared base, and return the bytes of selected files.

    Args:
        folder: the folder of the base and its bundles.
        select: called with the description of the base; returns the names of the files whose bytes are returned.

    Returns:
        The description of the base, and the bytes of the selected files.

    Raises:
        HyperFormerError: there is no base, a file is missing or was changed after the export, or `base.json` does not
            list the graph or the tokenizer.
    """
    return _read(
        folder,
        lambda path: convert_errors(lambda: manifest.read_base(path), f"{path} has no shared base"),
        manifest.BASE,
        lambda _: [manifest.GRAPH, manifest.TOKENIZER],
        select,
    )


def _read(
    folder: Path,
    read_description: Callable[[Path], D],
    file: str,
    required: Callable[[D], Sequence[str]],
    select: Callable[[D], Sequence[str]],
) -> tuple[D, Contents]:
    def attempt() -> tuple[D, Contents]:
        description = read_description(folder)
        for name in required(description):
            if name not in description.files:
                raise HyperFormerError(f"{folder / file} does not list {name}. Export the task again.")
        names = select(description)
        contents = convert_errors(
            lambda: manifest.verify(folder, description.files, names), f"the bundle {folder} cannot be verified"
        )
        return description, contents

    try:
        return attempt()
    except HyperFormerError:  # the folder may have been replaced while it was read
        return attempt()


def read_valid_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle and check its values.

    Raises:
        HyperFormerError: the folder is not a bundle, or a value of its manifest is invalid.
    """
    description = convert_errors(lambda: manifest.read(folder), f"{folder} is not a bundle")
    labels, numbers = description.labels, description.numbers
    invalid = [
        name
        for name, is_valid in {
            "text": isinstance(description.text, str) or [type(item) for item in description.text] == [str, str],
            "missing": description.missing in ("empty", None),
            "labels": all(isinstance(label, str) for label in labels) and len(set(labels)) == len(labels) != 1,
            "numbers": numbers is None
            or (len(numbers) == len(labels) and all(type(number) in (int, float) for number in numbers)),
            "max_source_tokens": type(description.max_source_tokens) is int
            and 0 < description.max_source_tokens <= LONGEST,
            "files": all(isinstance(sha256, str) for sha256 in description.files.values()),
            "example": all(isinstance(value, str) for value in description.example.values()),
            **{
                name: all(type(value) in (int, float) for value in getattr(description, name).values())
                for name in ("metrics", "baselines", "parity", "int8", "openvino")
            },
        }.items()
        if not is_valid
    ]
    if invalid:
        raise HyperFormerError(
            f"{folder / manifest.MANIFEST}: invalid value for {invalid[0]!r}: "
            f"{getattr(description, invalid[0])!r:.80}. Export the task again."
        )
    text.find_columns(description.text)
    return description


def choose_graph(folder: Path, description: Manifest, int8: bool) -> str:
    """Return the file name of a bundle's graph for classification or regression, in float32 or int8.

    Raises:
        HyperFormerError: the bundle uses a shared base, its task is generative, or it has no graph of this precision.
    """
    graph = manifest.INT8 if int8 else manifest.GRAPH
    if manifest.ADAPTER in description.files:
        raise HyperFormerError(f"{folder} uses a shared base; expected a separate bundle. Export the task to one.")
    if not description.labels:
        raise HyperFormerError(
            f"task {description.task!r} is generative. Load {folder / manifest.GENERATION} with optimum's "
            "ORTModelForSeq2SeqLM, as its README.md shows."
        )
    if graph not in description.files:
        drop = description.int8["float32"] - description.int8["metric"] if description.int8 else 0.0
        reason = f", because its validation metric was {drop:.2f} points lower" if description.int8 else ""
        raise HyperFormerError(f"{folder} has no {graph}{reason}. Use the float32 graph, or export the task again.")
    return graph


def check_openvino(folder: Path, description: Manifest) -> None:
    """Check that the export did not find that OpenVINO's answers differ too much.

    Raises:
        HyperFormerError: it did.
    """
    result = description.openvino
    if result and not result["published"]:
        raise HyperFormerError(
            f"{folder} cannot be used with the provider openvino: on validation, {result['changed']:.0f} of "
            f"{result['rows']:.0f} rows got another label, and the metric was "
            f"{result['float32'] - result['metric']:.2f} points lower. Use the provider cpu."
        )


def list_graph_files(graph: str, listed: Iterable[str]) -> list[str]:
    """Return the names of a graph's files: the graph itself, and the files of its external constants, if any."""
    return [graph, *(name for name in listed if name.startswith(f"{graph}."))]


def is_fault(error: BaseException) -> bool:
    """Return whether an error is a failure, not a request to stop such as `KeyboardInterrupt`.

    A panic of a Rust library is a failure too: it is not an `Exception`, and its class cannot be imported.
    """
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def summarize_error(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's class name if there is no message."""
    return first_line(error)[:300]


def convert_errors(function: Callable[[], T], message: str) -> T:
    """Call a function, and convert errors of files and libraries to `HyperFormerError`.

    Args:
        function: the function to call.
        message: the start of the message of a converted error.

    Returns:
        The result of the function.

    Raises:
        HyperFormerError: the function failed.
    """
    try:
        return function()
    except HyperFormerError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        raise HyperFormerError(
            f"{message} ({summarize_error(error)}). Use the folder of an exported task, or export it again."
        ) from None


def run_on_rows(function: Callable[[Sequence[R]], T], rows: Sequence[R], message: str) -> T:
    """Call a library's function on rows; if it fails, find the first row on which it fails alone.

    Args:
        function: the function; if it fails on all rows together, it is called on one row at a time until it fails.
        rows: the rows.
        message: the start of the error's message.

    Returns:
        The result of the function.

    Raises:
        RowError: the function fails on all rows together, and on this row alone.
        HyperFormerError: the function fails on all rows together, but on no single row.
    """
    try:
        return function(rows)
    except BaseException as error:
        if not is_fault(error):
            raise
        failure = error
    for index, row in enumerate(rows):
        try:
            function([row])
        except BaseException as error:
            if not is_fault(error):
                raise
            reason = f"{message} ({summarize_error(error)}). Change the row, or export the task again."
            raise RowError(index, reason) from None
    raise HyperFormerError(f"{message} ({summarize_error(failure)}). Use fewer rows at once, or export the task again.")
