"""Answers from an exported bundle, with numpy, onnxruntime and tokenizers only.

from hyperformer.runtime import load
load("data/06_models/onnx/sentiment")({"sentence": "The film is wonderful."})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hyperformer import manifest, text
from hyperformer.types import Answer, HyperFormerError, Scores

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"


class Bundle:
    """One exported task, ready to answer.

    Args:
        folder: what the export wrote: graph, tokenizer and manifest.
        threads: of onnxruntime; None for its own choice.
    Raises:
        HyperFormerError: the folder is no bundle, or one of its files is missing or not the one that was exported.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        for name, expected in self.manifest.files.items():
            path = self.folder / name
            if not path.is_file():
                raise HyperFormerError(f"the bundle {self.folder} lacks {name}; copy the whole folder")
            if manifest.sha256(path) != expected:
                raise HyperFormerError(
                    f"{path} is not the file that was exported (its sha256 differs); export or copy it again"
                )
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(self.folder / GRAPH), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.manifest.max_source_tokens)

    def scores(self, sources: Sequence[str], batch_size: int = 64) -> list[Scores]:
        """Log-likelihoods of the labels for each source text; rows are batched by length and come back in order."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(sources))]
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

    def answer(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The answers to rows, which hold the columns of the task's text."""
        sources = [text.render(self.manifest.text, row) for row in rows]
        labels, numbers = self.manifest.labels, self.manifest.numbers
        return [text.combine(scores.values, labels, numbers) for scores in self.scores(sources)]

    def __call__(self, row: Mapping[str, Any]) -> Answer:
        """The answer to one row."""
        return self.answer([row])[0]


def load(folder: str | Path, threads: int | None = None) -> Bundle:
    """Opens an exported task; see `Bundle`."""
    return Bundle(folder, threads)
