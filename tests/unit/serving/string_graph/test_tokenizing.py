"""Tokenizers as operators: the same tokens as the `tokenizers` library, for each kind of vocabulary."""

from __future__ import annotations

import random
import unicodedata
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import train_bert_tokenizer
from token_graph import build_token_graph
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from hyperformer.backbones import load
from hyperformer.core.errors import HyperFormerError
from hyperformer.runtime.bundle import open_tokenizer
from hyperformer.serving.string_graph.characters import PLANES
from hyperformer.serving.string_graph.comparison import PROBES, open_session
from hyperformer.settings import BackboneSettings

ROOT = Path(__file__).parents[4]
LONGEST = 24
TEXTS = (
    "the film is dull",
    "The FILM, isn't it?",
    "",
    " ",
    "\u00a0 the\tfilm\r\nis \u3000 dull\u200b",
    "日本 日 本本 ▲▲▲ \u0301",
    "Ænima ﬁlm ½ ⅓ ① ² \u017f İ ẞ Σς ǆ",
    "cafe\u0301 café A\u030a Å e\u0323\u0302 ệ",
    "👩‍👩‍👧 🇩🇪 \ufffd \ufeff\u00ad",
    "</s> <pad>[SEP]<s> < /s> <unk>",
    "film" * 40,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 2,
    "don\u00b4t \u00a8 film\u00b8 \u203e_(\u30c4)_/\u00af",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \u0438\u0306 \u0435\u0308 \u304b\u3099 \uff8a\uff9f \u0627\u0653",
    "I love it \U0001fa77\U0001fae8 \U00031350 \ufffe \u0378\u0379 \U000e0fff \U000f0000 \ue000\ue001",
)


def load_tokenizer(file: Path, longest: int) -> Tokenizer:
    """Load the tokenizer of a file, with truncation."""
    tokenizer = open_tokenizer(file.read_bytes())
    tokenizer.enable_truncation(longest)
    return tokenizer


def make_unigram_tokenizer(texts: list[str]) -> Tokenizer:
    """Make a tokenizer with special tokens around texts, never inside, and normalization rules that are spelled out."""
    pieces = dict.fromkeys(f"▁{word}" for text in texts for word in text.split())
    letters = dict.fromkeys(["▁", *(char for text in texts for char in text if char != " ")])
    special = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*special, *((piece, -4.0) for piece in pieces), *((letter, -9.0) for letter in letters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    marks = [normalizers.Replace(mark, f"< {mark[1:]}") for mark in ("<s>", "</s>", "<unk>")]
    tokenizer.normalizer = normalizers.Sequence([*marks, normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    return tokenizer


@pytest.fixture(scope="module")
def sentencepiece_file(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """Write the tokenizer file of a backbone that is loaded from a SentencePiece model, as T5's is."""
    import torch
    from t5_family import save_sentencepiece
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("sentencepiece")
    save_sentencepiece(folder, texts)
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_ff": 24, "num_layers": 1, "num_heads": 2, "d_kv": 4, "vocab_size": 160}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(folder)
    backbone = load(BackboneSettings(path=str(folder), max_source_tokens=LONGEST, max_target_tokens=8))
    backbone.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(params=["byte pairs", "sentencepiece", "bert", "bert, cased", "unigrams"])
def file(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    texts: list[str],
    backbone_folder: Path,
    sentencepiece_file: Path,
) -> Path:
    makers = {
        "bert": lambda: train_bert_tokenizer(texts),
        "bert, cased": lambda: train_bert_tokenizer(texts, lowercase=False, strip_accents=False),
        "unigrams": lambda: make_unigram_tokenizer(texts),
    }
    if request.param not in makers:
        return {"byte pairs": backbone_folder / "tokenizer.json", "sentencepiece": sentencepiece_file}[request.param]
    makers[request.param]().save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def random_texts(count: int) -> list[str]:
    draw = random.Random(0)
    characters = [char for char in map(chr, range(1, 0x3100)) if unicodedata.category(char) not in ("Cn", "Co", "Cs")]
    plain = "the film is dull, A Film! 12 "
    return ["".join(draw.choice(plain if draw.random() < 0.9 else characters) for _ in range(30)) for _ in range(count)]


@cache
def get_session(template: str | tuple[str, str], tokenizer: bytes, longest: int) -> Any:
    """Open the session of a token graph, once for each tokenizer, as that takes seconds."""
    return open_session(build_token_graph(template, open_tokenizer(tokenizer), longest))


def encode(
    template: str | tuple[str, str], file: Path, texts: dict[str, list[str]], longest: int = LONGEST
) -> list[list[int]]:
    session = get_session(template, file.read_bytes(), longest)
    ids, mask = session.run(None, {name: np.array(column, dtype=object) for name, column in texts.items()})
    assert ids.shape == mask.shape
    assert not ids[mask == 0].any()
    return [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)]


def test_a_text_becomes_the_same_tokens(file):
    texts = [*TEXTS, *PROBES]
    expected = [
        encoding.ids for encoding in load_tokenizer(file, LONGEST).encode_batch([f"about: {text}" for text in texts])
    ]
    assert encode("about: {text}", file, {"text": texts}) == expected


def test_nearly_any_text_becomes_the_same_tokens(file):
    texts = random_texts(400)
    expected = [encoding.ids for encoding in load_tokenizer(file, LONGEST).encode_batch(texts)]
    same = sum(got == wanted for got, wanted in zip(encode("{text}", file, {"text": texts}), expected, strict=True))
    assert same >= 396


def test_two_texts_are_joined_and_truncated_as_a_pair(tmp_path, texts):
    train_bert_tokenizer(texts).save(str(tmp_path / "tokenizer.json"))
    long_text = "the film is dull " * 8
    shortest = load_tokenizer(tmp_path / "tokenizer.json", 4)
    short = [("film", ""), ("", "film"), ("film", "is dull")]
    columns = {"a": [first for first, _ in short], "b": [second for _, second in short]}
    expected = [encoding.ids for encoding in shortest.encode_batch(short)]
    assert encode(("{a}", "{b}"), tmp_path / "tokenizer.json", columns, 4) == expected
    pairs = [(long_text[: 5 * i], long_text[: 5 * j]) for i in range(0, 26, 5) for j in range(0, 26, 5)]
    expected = [encoding.ids for encoding in load_tokenizer(tmp_path / "tokenizer.json", LONGEST).encode_batch(pairs)]
    assert any(len(ids) == LONGEST for ids in expected)
    columns = {"a": [first for first, _ in pairs], "b": [second for _, second in pairs]}
    assert encode(("{a}", "{b}"), tmp_path / "tokenizer.json", columns) == expected


def test_texts_without_a_token_are_encoded(file):
    tokenizer = load_tokenizer(file, LONGEST)
    assert encode("{text}", file, {"text": ["", " "]}) == [e.ids for e in tokenizer.encode_batch(["", " "])]


def test_a_vocabulary_that_no_operators_support_is_refused(tmp_path, texts):
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(HyperFormerError, match="is BPE with normalizer none; expected BERT's WordPiece or a Sen"):
        build_token_graph("{text}", byte_level, LONGEST)
    incomplete = train_bert_tokenizer(texts)
    pieces = {piece: number for piece, number in incomplete.get_vocab().items() if piece != "##f"}
    incomplete.model = models.WordPiece(pieces, unk_token="[UNK]")
    with pytest.raises(
        HyperFormerError, match="the vocabulary has no 'f' or no '##f'; onnxruntime-extensions expects both"
    ):
        build_token_graph("{text}", incomplete, LONGEST)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "different"),
    [("data/06_models/backbone", {0x340, 0x341, 0x344}), ("data/minilm/06_models/backbone", set())],
)
def test_every_character_becomes_the_same_tokens_except_for_some_marks(backbone, different):
    file = ROOT / backbone / "tokenizer.json"
    if not file.exists():
        pytest.skip(f"needs {backbone}: make minilm")
    texts = [f"the {chr(code)}lm a{chr(code)}b" for code in chain(*PLANES)]
    ids = encode("{text}", file, {"text": texts})
    expected = [encoding.ids for encoding in load_tokenizer(file, LONGEST).encode_batch(texts)]
    pairs = zip(chain(*PLANES), ids, expected, strict=True)
    assert {code for code, got, wanted in pairs if got != wanted} == different
