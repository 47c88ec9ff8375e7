"""A string graph reads as many characters of a text as its bundle does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encoders import bert_tokenizer

from hyperformer import prefix
from hyperformer.prefix import CHARACTERS
from hyperformer.runtime.bundle import open_tokenizer
from hyperformer.string_graph.graph import opened, reading, write_string_graph

LONGEST = 24
LIMIT = CHARACTERS * LONGEST
TEXTS = [
    "the film is dull",
    "",
    "a" * (LIMIT - 1) + " film",
    "a" * LIMIT + " film",
    "😀" * (LIMIT - 8) + " the film is dull",
    " " * (LIMIT - 4) + "the film",
    " " * 2 * LIMIT + "the film",
    "\n" * (LIMIT + 1),
    "ﷺ" * 2 * LIMIT,
    "the film is dull " * LIMIT,
    "字" * LIMIT + " film",
]


def read(template: str | tuple[str, str], file: Path, columns: dict[str, list[str]]) -> list[list[int]]:
    session = opened(reading(template, open_tokenizer(file.read_bytes()), LONGEST))
    ids, mask = session.run(None, {name: np.array(texts, dtype=object) for name, texts in columns.items()})
    return [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("kind", ["byte pairs", "bert"])
def test_a_graph_reads_the_characters_that_the_runtime_reads(kind, backbone_folder, texts, tmp_path):
    file = backbone_folder / "tokenizer.json"
    if kind == "bert":
        file = tmp_path / "tokenizer.json"
        bert_tokenizer(texts).save(str(file))
    expected, _ = prefix.encode(open_tokenizer(file.read_bytes()), TEXTS, LONGEST)
    assert read("{text}", file, {"text": TEXTS}) == expected


def test_a_graph_truncates_two_long_texts_as_the_runtime_does(texts, tmp_path):
    bert_tokenizer(texts).save(str(tmp_path / "tokenizer.json"))
    words = "the film is dull "
    lengths = (words, words * 8, words * 9, words * LIMIT, "字" * LIMIT)
    pairs = [pair for a in lengths for b in (words * 8, "ﬁ" * LIMIT) for pair in ((a, b), (b, a))]
    tokenizer = open_tokenizer((tmp_path / "tokenizer.json").read_bytes())
    session = opened(reading(("{a}", "{b}"), tokenizer, LONGEST))
    columns = {name: np.array([pair[place] for pair in pairs], dtype=object) for place, name in enumerate("ab")}
    ids, mask = session.run(None, columns)
    expected, _ = prefix.encode(tokenizer, pairs, LONGEST)
    assert [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)] == expected


def test_a_graph_tells_that_a_text_was_longer_than_what_is_read(bundles, tmp_path):
    rows = [{"sentence": text} for text in TEXTS]
    write_string_graph(bundles / "mood", tmp_path / "mood.onnx", rows)  # compares answers and `truncated`
    assert (tmp_path / "mood.onnx").is_file()
