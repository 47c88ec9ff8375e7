"""Compare a string graph with its bundle: the tokens and the answers of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer, Source
from hyperformer.runtime import Bundle
from hyperformer.runtime.sessions import FATAL
from hyperformer.serving.string_graph.graph import LABEL, PROBABILITIES, TRUNCATED

Row = Mapping[str, Any]
BATCH = 64
"""Number of rows that are compared at once."""
TOLERANCE = 1e-4
"""Maximum difference between a probability from the string graph and the same probability from the bundle."""
PROBES = (
    "The film, though slow, didn't lose me: 9/10!",
    "",
    "  two  spaces\tand a tab \n",
    "Ça va? naïve café, cafe\u0301, ﬁne Ångström €5.00 — “quoted” …",
    "word " * 300,
    "Antidisestablishmentarianism" * 8,
    "Привет, мир! Ἀθηνᾶ. 你好。日本語 안녕 🙂🙂",
    "a</s><unk>[SEP] [CLS]<pad> b\u00a0c",
    "don\u00b4t \u1112\u1161\u11ab \u0438\u0306 \u304b\u3099 \U0001fa77 \ue000\ue001 \u0378\u0379 x\U000e0fff",
)
"""Texts on which every string graph is compared with its bundle.

They vary letter case, accents, spaces, scripts and length, and contain literal special tokens.
"""


def iterate_probes(columns: Sequence[str]) -> Iterator[Row]:
    """Yield one row per probe, so that each column contains each probe once."""
    for number in range(len(PROBES)):
        yield {column: PROBES[(number + index) % len(PROBES)] for index, column in enumerate(columns)}


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open an onnxruntime session of a graph, with the operators of onnxruntime-extensions."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    options.log_severity_level = FATAL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def iterate_batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows in lists of at most `BATCH`."""
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        yield batch


class Comparison:
    """A comparison of a token graph and a string graph with their bundle; it counts the compared rows.

    Args:
        bundle: the bundle.
        inputs: the name of the graphs' input of each column.
        token_graph: the graph that maps texts to token ids.
        string_graph: the graph that maps texts to labels.
    """

    def __init__(
        self, bundle: Bundle, inputs: Mapping[str, str], token_graph: onnx.ModelProto, string_graph: onnx.ModelProto
    ) -> None:
        self.rows = 0
        self._bundle, self._inputs = bundle, inputs
        self._token_session, self._session = open_session(token_graph), open_session(string_graph)

    def __call__(self, batch: Sequence[Row]) -> None:
        """Compare the tokens and answers of rows.

        Raises:
            HyperFormerError: the tokens or the answer of a row differ.
        """
        sources = [self._bundle.source(row) for row in batch]
        inputs = {
            name: np.array([self._render_value(row, column) for row in batch], dtype=object)
            for column, name in self._inputs.items()
        }
        ids, masks = self._token_session.run(None, inputs)
        expected, _ = self._bundle.encode(sources)
        for source, row_ids, mask, expected_ids in zip(sources, ids, masks, expected, strict=True):
            if row_ids[mask == 1].tolist() != expected_ids:
                raise HyperFormerError(
                    f"the string graph and the task's tokenizer encode {source!r:.200} differently. The string graph "
                    "is not written; use the bundle's own graph, which takes token ids."
                )
        outputs = self._session.run([LABEL, PROBABILITIES, TRUNCATED], inputs)
        for source, label, probabilities, truncated, answer in zip(
            sources, *outputs, self._bundle.answer_sources(sources), strict=True
        ):
            if not _is_same(label, probabilities.tolist(), bool(truncated), answer):
                raise HyperFormerError(
                    f"the string graph and its bundle predict different outputs for {source!r:.200} (labels {label!r} "
                    f"and {answer.label!r}). The string graph is not written; use the bundle's own graph, which takes "
                    "token ids."
                )
        self.rows += len(batch)

    def _render_value(self, row: Row, column: str) -> Source:
        """Return the text of a row's value, as in the bundle."""
        return text.render(f"{{{column}}}", row, self._bundle.manifest.missing)


def _is_same(label: str, probabilities: Sequence[float], truncated: bool, answer: Answer) -> bool:
    """Return whether a string graph's outputs equal the bundle's answer, except for rounding."""
    expected = list(answer.probabilities.values())
    difference = max(abs(left - right) for left, right in zip(probabilities, expected, strict=True))
    is_tie = answer.probabilities[answer.label] - answer.probabilities[label] <= 2 * TOLERANCE
    return difference <= TOLERANCE and is_tie and truncated == answer.truncated
