"""Run an exported task."""

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

from hyperformer.core import manifest, prefix, text
from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.manifest import Manifest
from hyperformer.core.types import Answer, Scores, Source
from hyperformer.runtime.files import choose_graph, convert_errors, list_graph_files, read_bundle, run_on_rows

Precision = Literal["float32", "int8"]
FATAL = 4
"""onnxruntime's log level for fatal errors only; at lower levels, it also prints the errors that it raises."""
CONSTANTS_FOLDER_OPTION = "session.model_external_initializers_file_folder_path"
"""onnxruntime's option for the folder of a graph's external constants; the default is the working directory."""
NO_FOLDER = os.devnull
"""A path that holds no files, so that constants come from verified bytes only."""


def open_session(graph: Path, contents: Mapping[str, bytes], threads: int | None) -> Any:
    """Open an onnxruntime session from a graph's bytes, without reading a file.

    Args:
        graph: path of the graph, for messages; `contents` has the graph's bytes under its file name.
        contents: bytes of the graph and of the files of its external constants, by file name.
        threads: number of threads of onnxruntime; None for its default.

    Returns:
        The session.

    Raises:
        HyperFormerError: onnxruntime cannot open the graph.
    """
    options = onnxruntime.SessionOptions()
    # the memory of both grows with every new batch length, and inference is as fast without them
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.log_severity_level = FATAL  # onnxruntime warns of each input of a shared graph
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry(CONSTANTS_FOLDER_OPTION, NO_FOLDER)
    data = {name: contents[name] for name in list_graph_files(graph.name, contents) if name != graph.name}
    if data:
        options.add_external_initializers_from_files_in_memory(
            list(data), list(data.values()), list(map(len, data.values()))
        )
    providers, retry = ["CPUExecutionProvider"], 0  # a retry would use the same provider, and print a message
    session = convert_errors(
        lambda: onnxruntime.InferenceSession(contents[graph.name], options, providers=providers, enable_fallback=retry),
        f"{graph} cannot be opened",
    )
    session._model_bytes = None  # the session would keep them for its lifetime
    return session


def open_tokenizer(content: bytes, file: Path = Path(manifest.TOKENIZER)) -> Any:
    """Load a tokenizer from the bytes of its file. It does not truncate texts; `prefix.encode` does.

    Args:
        content: bytes of a `tokenizer.json`.
        file: path of that file, for messages.

    Returns:
        A `tokenizers.Tokenizer` that encodes special tokens in a text as text.

    Raises:
        HyperFormerError: the bytes are not a tokenizer.
    """
    tokenizer = convert_errors(lambda: Tokenizer.from_buffer(content), f"{file} cannot be opened")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def check_options(threads: int | None, precision: Precision) -> None:
    """Check the options that bundles are loaded with.

    Raises:
        HyperFormerError: the precision is unknown, or `threads` is not a positive integer.
    """
    if precision not in get_args(Precision):
        raise HyperFormerError(f"precision is {precision!r}; expected one of {', '.join(get_args(Precision))}")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise HyperFormerError(f"threads is {threads!r}; expected a positive integer")


class Bundle:
    """An exported classification or regression task; thread-safe.

    Args:
        folder: a folder that an export wrote, with graph, tokenizer and manifest.
        threads: number of threads of onnxruntime; None for its default.
        precision: the graph to load, `float32` or `int8`.
        description: the manifest, if it is not in the folder yet; None: it is read from the folder.
        allow_unpublished: also load a bundle that is not published.

    Raises:
        HyperFormerError: the folder is not a bundle, the bundle is not published, one of its files is missing or was
            changed after the export, the bundle has no graph of this precision or uses a shared base, the task is
            generative, or `threads` is invalid.
    """

    def __init__(
        self,
        folder: str | Path,
        threads: int | None = None,
        precision: Precision = "float32",
        description: Manifest | None = None,
        allow_unpublished: bool = False,
    ) -> None:
        check_options(threads, precision)
        self.folder = Path(folder)
        int8 = precision == "int8"
        self.manifest, contents = read_bundle(
            self.folder,
            lambda listed: [
                *list_graph_files(choose_graph(self.folder, listed, int8), listed.files),
                manifest.TOKENIZER,
            ],
            description,
            allow_unpublished,
        )
        graph = self.folder / choose_graph(self.folder, self.manifest, int8)
        self._session = open_session(graph, contents, threads)
        self._options: Any = None
        shape = next((out.shape for out in self._session.get_outputs() if out.name == "scores"), None)
        if shape is None or shape[-1] != len(self.manifest.labels):
            raise HyperFormerError(
                f"{graph} has scores of shape {shape}; expected a score for each of {len(self.manifest.labels)} "
                "labels. Export the task again."
            )
        self._tokenizer = open_tokenizer(contents[manifest.TOKENIZER], self.folder / manifest.TOKENIZER)

    def source(self, row: Mapping[str, Any]) -> Source:
        """Return the source text of a row, or its two source texts.

        Raises:
            HyperFormerError: the row is not a mapping, a column of the task's text is missing, or a value has no text
                (`core.values.to_text`).
        """
        if not isinstance(row, Mapping):
            raise HyperFormerError(f"got a {type(row).__name__}; expected a row, a mapping of column names to texts")
        return text.render(self.manifest.text, row, self.manifest.missing)

    def encode(self, sources: Sequence[Source]) -> tuple[list[list[int]], list[bool]]:
        """Encode source texts into at most `max_source_tokens` token ids each; see `prefix`.

        Returns:
            The token ids of each source, and whether it was truncated.

        Raises:
            RowError: the tokenizer fails on a source.
            HyperFormerError: the tokenizer fails on all sources together, but on no single source.
        """
        return run_on_rows(self._encode, sources, "the tokenizer cannot read the text")

    def _encode(self, sources: Sequence[Source]) -> tuple[list[list[int]], list[bool]]:
        return prefix.encode(self._tokenizer, sources, self.manifest.max_source_tokens)

    def scores(self, sources: Sequence[Source], batch_size: int = 64) -> list[Scores]:
        """Return the log-probability of each label for each source; batches contain sources of similar length."""
        return self._scores(self.encode(sources)[0], batch_size)

    def _scores(self, encoded: Sequence[list[int]], batch_size: int) -> list[Scores]:
        if batch_size < 1:
            raise HyperFormerError(f"batch_size is {batch_size}; expected at least 1")
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        scores: dict[int, Scores] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            try:
                values = run_on_rows(self._run, [encoded[i] for i in chosen], "the graph cannot read the row's tokens")
            except RowError as error:
                raise RowError(chosen[error.row], error.reason) from None
            scores.update(
                (i, Scores(self.manifest.task, tuple(row))) for i, row in zip(chosen, values.tolist(), strict=True)
            )
        return [scores[i] for i in range(len(encoded))]

    def _run(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
        """Return the scores [B, labels] of the labels for rows of token ids."""
        input_ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for i, ids in enumerate(rows):
            input_ids[i, : len(ids)] = ids
            mask[i, : len(ids)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": mask}
        scores: NDArray[np.float32] = self._session.run(["scores"], inputs, self._options)[0]
        return scores

    def answer(self, rows: Sequence[Mapping[str, Any]], batch_size: int = 64) -> list[Answer]:
        """Predict the answer of each row; rows must have the columns of the task's text.

        Raises:
            HyperFormerError: `rows` is not a list of rows, a row is invalid, or `batch_size` is less than 1.
            RowError: the tokenizer or the graph fails on a row, or the scores of a row are not finite.
        """
        if isinstance(rows, Mapping | str):
            raise HyperFormerError(
                f"got a single {type(rows).__name__}; expected a list of rows. Call the bundle for a single row."
            )
        return self.answer_sources([self.source(row) for row in rows], batch_size)

    def answer_sources(self, sources: Sequence[Source], batch_size: int = 64) -> list[Answer]:
        """Predict the answer of each source; the method `source` returns the source of a row.

        Raises:
            RowError: the tokenizer or the graph fails on a row, or the scores of a row are not finite.
        """
        encoded, truncated = self.encode(sources)
        scores = (row.values for row in self._scores(encoded, batch_size))
        answers = text.combine_rows(scores, self.manifest.labels, self.manifest.numbers)
        return [replace(answer, truncated=flag) for answer, flag in zip(answers, truncated, strict=True)]

    def __call__(self, row: Mapping[str, Any]) -> Answer:
        """Predict the answer of a single row."""
        return self.answer([row])[0]
