"""One exported task, ready to answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hyperformer import manifest, prefix, text
from hyperformer.runtime.files import graph_files, graph_name, on_rows, read_bundle, tried
from hyperformer.types import Answer, HyperFormerError, RowError, Scores, Source

Precision = Literal["float32", "int8"]
FATAL = 4  # onnxruntime's level of log messages; its errors are raised too, and would be printed
CONSTANTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""onnxruntime's option: where a graph's constants lie that are in files of their own; else the working directory."""
NOWHERE = os.devnull
"""No file lies in it: constants come from verified bytes only."""


def opened(graph: Path, contents: Mapping[str, bytes], threads: int | None) -> Any:
    """Open onnxruntime's session of a graph; it reads no file.

    Args:
        graph: where it lies, for messages; its name is that of its bytes.
        contents: the bytes of the graph, and of the files of its constants, by name.
    """
    options = onnxruntime.SessionOptions()
    # both grow with every new length of a batch, and a run is as fast without them
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.log_severity_level = FATAL  # it warns of every input of a base that has a value of its own
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry(CONSTANTS_FOLDER, NOWHERE)
    data = {name: contents[name] for name in graph_files(graph.name, contents) if name != graph.name}
    if data:
        options.add_external_initializers_from_files_in_memory(
            list(data), list(data.values()), list(map(len, data.values()))
        )
    providers, again = ["CPUExecutionProvider"], 0  # a second try would be the same, and printed
    session = tried(
        lambda: onnxruntime.InferenceSession(contents[graph.name], options, providers=providers, enable_fallback=again),
        f"{graph} cannot be opened",
    )
    session._model_bytes = None  # it would keep them as long as it lives
    return session


def open_tokenizer(content: bytes, file: Path = Path(manifest.TOKENIZER)) -> Any:
    """Open the tokenizer of a file's bytes, without truncation: `prefix.encode` truncates."""
    tokenizer = tried(lambda: Tokenizer.from_buffer(content), f"{file} cannot be opened")
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
        int8 = precision == "int8"
        self.manifest, contents = read_bundle(
            self.folder,
            lambda read: [*graph_files(graph_name(self.folder, read, int8), read.files), manifest.TOKENIZER],
        )
        graph = self.folder / graph_name(self.folder, self.manifest, int8)
        self._session = opened(graph, contents, threads)
        self._options: Any = None
        shape = next((out.shape for out in self._session.get_outputs() if out.name == "scores"), None)
        if shape is None or shape[-1] != len(self.manifest.labels):
            raise HyperFormerError(
                f"{graph} gives scores {shape}, expected one for each of {len(self.manifest.labels)} labels; export "
                "the task again"
            )
        self._tokenizer = open_tokenizer(contents[manifest.TOKENIZER], self.folder / manifest.TOKENIZER)

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
        """Encode sources into token ids, and tell which were truncated to the task's longest. See `prefix`.

        Raises:
            RowError: the tokenizer fails on a text.
        """
        return on_rows(self._encode, sources, "the tokenizer cannot read the text")

    def _encode(self, sources: Sequence[Source]) -> tuple[list[list[int]], list[bool]]:
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
            try:
                values = on_rows(self._run, [encoded[i] for i in chosen], "the graph cannot read the row's tokens")
            except RowError as error:
                raise RowError(chosen[error.row], error.reason) from None
            found.update(
                (i, Scores(self.manifest.task, tuple(row))) for i, row in zip(chosen, values.tolist(), strict=True)
            )
        return [found[i] for i in range(len(encoded))]

    def _run(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
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
        """Answer source texts, as `source` makes them of rows.

        Raises:
            RowError: the tokenizer or the graph fails on a row, or its scores are not finite.
        """
        encoded, cut = self.encode(sources)
        scores = (row.values for row in self._scores(encoded, batch_size))
        answers = text.answers(scores, self.manifest.labels, self.manifest.numbers)
        return [replace(answer, truncated=was) for answer, was in zip(answers, cut, strict=True)]

    def __call__(self, row: Mapping[str, Any]) -> Answer:
        """The answer to one row."""
        return self.answer([row])[0]
