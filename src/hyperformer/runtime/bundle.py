"""One exported task, ready to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hyperformer import manifest, text
from hyperformer.types import Answer, HyperFormerError, Scores

Precision = Literal["float32", "int8"]


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
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        manifest.verify(self.folder, self.manifest)
        graph = manifest.GRAPH if precision == "float32" else manifest.INT8
        if graph not in self.manifest.files:
            raise HyperFormerError(self._without(graph))
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(self.folder / graph), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(self.folder / manifest.TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.manifest.max_source_tokens)
        self._tokenizer.encode_special_tokens = True  # what a text holds is text

    def _without(self, graph: str) -> str:
        if not self.manifest.labels:
            return (
                f"the task {self.manifest.task!r} writes texts: load {self.folder / manifest.GENERATION} with "
                "optimum's ORTModelForSeq2SeqLM, as its README.md shows"
            )
        lost = self.manifest.int8.get("float32", 0.0) - self.manifest.int8.get("metric", 0.0)
        return f"{self.folder} holds no {graph}: its metric fell by {lost:.2f} points; use the graph in float32"

    def source(self, row: Mapping[str, Any]) -> str:
        """The text that a row is read as.

        Raises:
            HyperFormerError: the row lacks a column of the task's text, or has no text there.
        """
        return text.render(self.manifest.text, row)

    def encode(self, sources: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text, and whether it was cut to the task's longest."""
        found = self._tokenizer.encode_batch(list(sources))
        return [one.ids for one in found], [bool(one.overflowing) for one in found]

    def scores(self, sources: Sequence[str], batch_size: int = 64) -> list[Scores]:
        """Log-probabilities of the labels for each source text; rows are batched by length and come back in order."""
        return self._scores(self.encode(sources)[0], batch_size)

    def _scores(self, encoded: Sequence[list[int]], batch_size: int) -> list[Scores]:
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
        scores: NDArray[np.float32] = self._session.run(["scores"], {"input_ids": input_ids, "attention_mask": mask})[0]
        return scores

    def answer(self, rows: Sequence[Mapping[str, Any]], batch_size: int = 64) -> list[Answer]:
        """The answers to rows, which hold the columns of the task's text."""
        encoded, cut = self.encode([self.source(row) for row in rows])
        labels, numbers = self.manifest.labels, self.manifest.numbers
        answers = [text.combine(scores.values, labels, numbers) for scores in self._scores(encoded, batch_size)]
        return [replace(answer, truncated=was) for answer, was in zip(answers, cut, strict=True)]

    def __call__(self, row: Mapping[str, Any]) -> Answer:
        """The answer to one row."""
        return self.answer([row])[0]
