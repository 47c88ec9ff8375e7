"""One exported task, ready to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hyperformer import manifest, prefix, text
from hyperformer.manifest import Manifest
from hyperformer.types import Answer, HyperFormerError, Scores, Source

Precision = Literal["float32", "int8"]
ERRORS = 3  # onnxruntime's level of log messages that are mistakes
LONGEST = 1 << 20  # tokens that a text may be said to have
T = TypeVar("T")


def described(folder: Path) -> Manifest:
    """The manifest of a bundle, if what it says can be.

    Raises:
        HyperFormerError: the folder is no bundle, or its manifest contradicts itself.
    """
    found = tried(lambda: manifest.read(folder), f"{folder} is no bundle")
    labels, numbers = found.labels, found.numbers
    wrong = [
        name
        for name, right in {
            "text": isinstance(found.text, str) or [type(part) for part in found.text] == [str, str],
            "labels": all(isinstance(one, str) for one in labels) and len(set(labels)) == len(labels) != 1,
            "numbers": numbers is None
            or (len(numbers) == len(labels) and all(type(one) in (int, float) for one in numbers)),
            "max_source_tokens": type(found.max_source_tokens) is int and 0 < found.max_source_tokens <= LONGEST,
            "files": all(isinstance(one, str) for one in found.files.values()),
            **{
                name: all(type(one) in (int, float) for one in getattr(found, name).values())
                for name in ("metrics", "parity", "int8")
            },
        }.items()
        if not right
    ]
    if wrong:
        raise HyperFormerError(
            f"{folder / manifest.FILE} has {wrong[0]!r} that cannot be, {getattr(found, wrong[0])!r:.80}; export "
            "the task again"
        )
    text.columns(found.text)
    return found


def verify(folder: Path, found: Manifest) -> None:
    """Sees to it that a bundle's files are there, and the ones that were exported.

    Raises:
        HyperFormerError: one is missing, not listed, or has other bytes.
    """
    alone = found.labels and manifest.ADAPTER not in found.files
    verify_files(folder, manifest.FILE, found.files, [manifest.GRAPH, manifest.TOKENIZER] if alone else [])


def graph_of(folder: Path, found: Manifest, int8: bool) -> Path:
    """The classifier graph of a bundle, in float32 or int8.

    Raises:
        HyperFormerError: there is none.
    """
    graph = manifest.INT8 if int8 else manifest.GRAPH
    if manifest.ADAPTER in found.files:
        raise HyperFormerError(f"{folder} is on a shared base: export a bundle of its own")
    if not found.labels:
        raise HyperFormerError(
            f"the task {found.task!r} writes texts: load {folder / manifest.GENERATION} with optimum's "
            "ORTModelForSeq2SeqLM, as its README.md shows"
        )
    if graph not in found.files:
        why = f": its metric fell by {found.int8['float32'] - found.int8['metric']:.2f} points" if found.int8 else ""
        raise HyperFormerError(f"{folder} holds no {graph}{why}; use the graph in float32")
    return folder / graph


def verify_files(folder: Path, source: str, files: Mapping[str, str], needed: Sequence[str]) -> None:
    """Sees to it that listed files are the ones that were exported, and that the needed ones are listed.

    Args:
        source: the file that lists them.
        files: the sha256 of each by its path in the folder.
    Raises:
        HyperFormerError: they are not.
    """
    for name in needed:
        if name not in files:
            raise HyperFormerError(f"{folder / source} does not list {name}; export the task again")
    tried(lambda: manifest.verify(folder, files), f"the bundle {folder} cannot be checked")


def tried(work: Callable[[], T], what: str) -> T:
    """What `work` gives; a fault of file or library as a sentence."""
    try:
        return work()
    except HyperFormerError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise HyperFormerError(
            f"{what} ({reason:.200}); give the folder of an exported task, or export it again"
        ) from None


def opened(graph: Path, threads: int | None) -> Any:
    """onnxruntime's session of a graph."""
    options = onnxruntime.SessionOptions()
    # both grow with every new length of a batch, and a run is as fast without them
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.log_severity_level = ERRORS  # it warns of every input of a base that has a value of its own
    if threads is not None:
        options.intra_op_num_threads = threads
    providers, again = ["CPUExecutionProvider"], 0  # a second try would be the same, and printed
    return tried(
        lambda: onnxruntime.InferenceSession(str(graph), options, providers=providers, enable_fallback=again),
        f"{graph} cannot be opened",
    )


def open_tokenizer(file: Path) -> Any:
    """Open the tokenizer of a file, without truncation: `prefix.encode` truncates."""
    tokenizer = tried(lambda: Tokenizer.from_file(str(file)), f"{file} cannot be opened")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # what a text holds is text
    return tokenizer


def checked(threads: int | None, precision: Precision) -> None:
    """Refuses what a bundle cannot be opened with.

    Raises:
        HyperFormerError: the precision is unknown, or threads are no number of them.
    """
    if precision not in get_args(Precision):
        raise HyperFormerError(f"the precision is {precision!r}, expected one of {', '.join(get_args(Precision))}")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise HyperFormerError(f"threads is {threads!r}, expected a whole number from 1")


class Bundle:
    """One exported task; may be asked from several threads at once.

    Args:
        folder: what the export wrote: graph, tokenizer and manifest.
        threads: of onnxruntime; None for its own choice.
        precision: `int8` takes the graph in int8.
    Raises:
        HyperFormerError: the folder is no bundle, or one of its files is missing or not the one that was exported.
    """

    def __init__(self, folder: str | Path, threads: int | None = None, precision: Precision = "float32") -> None:
        checked(threads, precision)
        self.folder = Path(folder)
        self.manifest = described(self.folder)
        verify(self.folder, self.manifest)
        graph = graph_of(self.folder, self.manifest, precision == "int8")
        self._session = opened(graph, threads)
        self._options: Any = None
        shape = next((out.shape for out in self._session.get_outputs() if out.name == "scores"), None)
        if shape is None or shape[-1] != len(self.manifest.labels):
            raise HyperFormerError(
                f"{graph} gives scores {shape}, expected one for each of {len(self.manifest.labels)} labels; export "
                "the task again"
            )
        self._tokenizer = open_tokenizer(self.folder / manifest.TOKENIZER)

    def source(self, row: Mapping[str, Any]) -> Source:
        """The text, or the two, that a row is read as.

        Raises:
            HyperFormerError: the row is none, lacks a column of the task's text, or has no text there.
        """
        if not isinstance(row, Mapping):
            raise HyperFormerError(f"got a {type(row).__name__}, expected a row: a mapping of columns to their texts")
        source = text.render(self.manifest.text, row)
        try:
            text.joined(source).encode()
        except UnicodeEncodeError as error:
            raise HyperFormerError(
                f"the row holds a character that is none ({error.reason}); give text in UTF-8"
            ) from None
        return source

    def encode(self, sources: Sequence[Source]) -> tuple[list[list[int]], list[bool]]:
        """Encode sources; returns token ids of each, and whether it was truncated. See `prefix`."""
        return prefix.encode(self._tokenizer, sources, self.manifest.max_source_tokens)

    def scores(self, sources: Sequence[Source], batch_size: int = 64) -> list[Scores]:
        """Log-probabilities of the labels for each source text; rows are batched by length and come back in order."""
        return self._scores(self.encode(sources)[0], batch_size)

    def _scores(self, encoded: Sequence[list[int]], batch_size: int) -> list[Scores]:
        if batch_size < 1:
            raise HyperFormerError(f"batch_size is {batch_size}, expected at least 1")
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found: dict[int, Scores] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            values = self._run([encoded[i] for i in chosen])
            found.update(
                (i, Scores(self.manifest.task, tuple(row))) for i, row in zip(chosen, values.tolist(), strict=True)
            )
        return [found[i] for i in range(len(encoded))]

    def _run(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """Scores [B, labels] of token ids."""
        input_ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for i, ids in enumerate(rows):
            input_ids[i, : len(ids)] = ids
            mask[i, : len(ids)] = 1
        given = {"input_ids": input_ids, "attention_mask": mask}
        scores: NDArray[np.float32] = self._session.run(["scores"], given, self._options)[0]
        return scores

    def answer(self, rows: Sequence[Mapping[str, Any]], batch_size: int = 64) -> list[Answer]:
        """The answers to rows, which hold the columns of the task's text."""
        if isinstance(rows, Mapping | str):
            raise HyperFormerError(f"got one {type(rows).__name__}, expected a list of rows; ask one row by calling")
        return self.answer_sources([self.source(row) for row in rows], batch_size)

    def answer_sources(self, sources: Sequence[Source], batch_size: int = 64) -> list[Answer]:
        """The answers to source texts, as `source` makes them of rows."""
        encoded, cut = self.encode(sources)
        labels, numbers = self.manifest.labels, self.manifest.numbers
        answers = [text.combine(scores.values, labels, numbers) for scores in self._scores(encoded, batch_size)]
        return [replace(answer, truncated=was) for answer, was in zip(answers, cut, strict=True)]

    def __call__(self, row: Mapping[str, Any]) -> Answer:
        """The answer to one row."""
        return self.answer([row])[0]
