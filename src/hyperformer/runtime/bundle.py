"""Run an exported task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hyperformer.core import manifest, prefix, text
from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.manifest import Manifest
from hyperformer.core.types import Answer, Scores, Source
from hyperformer.runtime.files import (
    check_openvino,
    choose_graph,
    convert_errors,
    list_graph_files,
    read_bundle,
    run_on_rows,
)
from hyperformer.runtime.sessions import Provider, open_session

Precision = Literal["float32", "int8"]


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


def check_options(threads: int | None, precision: Precision, provider: Provider) -> None:
    """Check the options that bundles are loaded with.

    Raises:
        HyperFormerError: precision or provider are unknown, the provider does not run int8 graphs, or `threads` is not
            a positive integer.
    """
    for name, value, kind in (("precision", precision, Precision), ("provider", provider, Provider)):
        if value not in get_args(kind):
            raise HyperFormerError(f"{name} is {value!r}; expected one of {', '.join(get_args(kind))}")
    if precision == "int8" and provider != "cpu":
        raise HyperFormerError(
            f"the provider {provider} does not run int8 graphs; expected precision float32. Leave int8 out, or use the "
            "provider cpu."
        )
    if threads is not None and (type(threads) is not int or threads < 1):
        raise HyperFormerError(f"threads is {threads!r}; expected a positive integer")


class Bundle:
    """An exported classification or regression task; thread-safe.

    Args:
        folder: a folder that an export wrote, with graph, tokenizer and manifest.
        threads: number of CPU threads; None for the provider's default.
        precision: the graph to load, `float32` or `int8`.
        description: the manifest, if it is not in the folder yet; None: it is read from the folder.
        allow_unpublished: also load a bundle that is not published.
        provider: what runs the graph; `openvino` computes in bf16 if the CPU has instructions for it.

    Raises:
        HyperFormerError: the folder is not a bundle, the bundle is not published, one of its files is missing or was
            changed after the export, the bundle has no graph of this precision or uses a shared base, the task is
            generative, an option is invalid, the provider is not installed, or the export found that its answers
            differ too much.
    """

    def __init__(
        self,
        folder: str | Path,
        threads: int | None = None,
        precision: Precision = "float32",
        description: Manifest | None = None,
        allow_unpublished: bool = False,
        provider: Provider = "cpu",
    ) -> None:
        check_options(threads, precision, provider)
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
        if provider == "openvino":
            check_openvino(self.folder, self.manifest)
        self._session: Any = open_session(graph, contents, threads, provider)
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
        answers = self.answer_tokens(encoded, batch_size)
        return [replace(answer, truncated=flag) for answer, flag in zip(answers, truncated, strict=True)]

    def answer_tokens(self, encoded: Sequence[list[int]], batch_size: int = 64) -> list[Answer]:
        """Predict the answer of each source from its token ids, as `encode` returns them.

        Raises:
            RowError: the graph fails on a row, or the scores of a row are not finite.
        """
        scores = (row.values for row in self._scores(encoded, batch_size))
        return list(text.combine_rows(scores, self.manifest.labels, self.manifest.numbers))

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens of the tokenizer."""
        size: int = self._tokenizer.get_vocab_size()
        return size

    def __call__(self, row: Mapping[str, Any]) -> Answer:
        """Predict the answer of a single row."""
        return self.answer([row])[0]
