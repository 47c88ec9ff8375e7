"""A string graph encodes as many characters of a text as its bundle does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encoders import train_bert_tokenizer
from token_graph import build_token_graph

from hyperformer.core import prefix
from hyperformer.core.prefix import CHARACTERS
from hyperformer.runtime.bundle import open_tokenizer
from hyperformer.serving.string_graph import write_string_graph
from hyperformer.serving.string_graph.comparison import open_session

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


def encode(template: str | tuple[str, str], file: Path, columns: dict[str, list[str]]) -> list[list[int]]:
    session = open_session(build_token_graph(template, open_tokenizer(file.read_bytes()), LONGEST))
    ids, mask = session.run(None, {name: np.array(texts, dtype=object) for name, texts in columns.items()})
    return [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("kind", ["byte pairs", "bert"])
def test_a_graph_encodes_the_characters_that_the_runtime_encodes(kind, backbone_folder, texts, tmp_path):
    file = backbone_folder / "tokenizer.json"
    if kind == "bert":
        file = tmp_path / "tokenizer.json"
        train_bert_tokenizer(texts).save(str(file))
    expected, _ = prefix.encode(open_tokenizer(file.read_bytes()), TEXTS, LONGEST)
    assert encode("{text}", file, {"text": TEXTS}) == expected


def test_a_graph_truncates_two_long_texts_as_the_runtime_does(texts, tmp_path):
    train_bert_tokenizer(texts).save(str(tmp_path / "tokenizer.json"))
    phrase = "the film is dull "
    lengths = (phrase, phrase * 8, phrase * 9, phrase * LIMIT, "字" * LIMIT)
    pairs = [pair for a in lengths for b in (phrase * 8, "ﬁ" * LIMIT) for pair in ((a, b), (b, a))]
    tokenizer = open_tokenizer((tmp_path / "tokenizer.json").read_bytes())
    session = open_session(build_token_graph(("{a}", "{b}"), tokenizer, LONGEST))
    columns = {name: np.array([pair[index] for pair in pairs], dtype=object) for index, name in enumerate("ab")}
    ids, mask = session.run(None, columns)
    expected, _ = prefix.encode(tokenizer, pairs, LONGEST)
    assert [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)] == expected


def test_a_graph_reports_truncated_texts(bundles, tmp_path):
    rows = [{"sentence": text} for text in TEXTS]
    write_string_graph(bundles / "mood", tmp_path / "mood.onnx", rows)  # compares answers and `truncated`
    assert (tmp_path / "mood.onnx").is_file()
