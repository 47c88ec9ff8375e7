"""Encoding a prefix gives the tokens of the whole text, and its cost does not depend on the text's length."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from encoders import build_unigrams, train_byte_pairs, train_wordpieces
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from toys import toy_pairs, toy_sentences

from hyperformer.backbones import t5_tokenizers
from hyperformer.core import prefix
from hyperformer.core.prefix import BATCH, CHARACTERS, PREFIX

LONGEST = 12
LIMIT = CHARACTERS * LONGEST
EMBEDDED = Path(__file__).parents[3] / "data" / "06_models" / "backbone" / "tokenizer.json"
FRAGMENTS = [
    *("the film is dull ", "film", "Don't they'll ", "A FILM, isn't it? ", "12,345.60 ", "Σίσυφος ", "Привет "),
    *("日本語の文章。", "字", "한국어 ", "\u1112\u1161\u11ab", "ภาษาไทย", "हिन्दी ", "العربية "),
    *("ﷺ", "㌖", "½", "ﬁ", "e\u0301", "\u0301\u0323", "\u0327", "👩‍👩‍👧", "İ", "A\u030a"),
    *(" ", "\t\n", "\u00a0", "\u3000", "\u200b", "\x01", "\ufeff", "\u00ad", "\0"),
    *("</s>", "<extra_id_0>", "[SEP]", "<unk>", "▁", "----", "<"),
]
PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
RUNS = st.lists(st.tuples(st.sampled_from(FRAGMENTS) | st.text(max_size=6), st.integers(1, 40)), max_size=12)
TEXTS = RUNS.map(lambda runs: "".join(fragment * times for fragment, times in runs))


def sentencepiece(texts: list[str]) -> Tokenizer:
    """Return a tokenizer like T5's: special tokens are escaped, unknown characters are merged."""
    tokenizer = build_unigrams(texts).backend_tokenizer
    escapes = [normalizers.Replace(token, f"< {token[1:]}") for token in ("</s>", "<extra_id_0>")]
    tokenizer.normalizer = normalizers.Sequence([*escapes, normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer


KINDS: dict[str, Any] = {
    "bert": lambda texts: train_wordpieces(texts).backend_tokenizer,
    "roberta": lambda texts: train_byte_pairs(texts).backend_tokenizer,
    "xlm-roberta": lambda texts: build_unigrams(texts).backend_tokenizer,
    "sentencepiece": sentencepiece,
    "byt5": lambda texts: t5_tokenizers.build_byte_tokenizer().backend_tokenizer,
    "embedded": lambda texts: Tokenizer.from_file(str(EMBEDDED)),
}
PAIRED = ("bert", "roberta", "xlm-roberta")


@cache
def tokenizers(kind: str) -> tuple[Tokenizer, Tokenizer]:
    """Return a tokenizer, and a copy for truncation by its library."""
    texts = [row["sentence"] for row in toy_sentences()] + [row["a"] for row in toy_pairs()]
    plain = KINDS[kind](texts)
    plain.no_truncation()
    plain.no_padding()
    truncating = Tokenizer.from_str(plain.to_str())
    for tokenizer in (plain, truncating):
        tokenizer.encode_special_tokens = True
    return plain, truncating


class Counting:
    """A tokenizer that counts the characters it encodes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.batches = tokenizer, []

    def encode(self, *texts: str) -> Any:
        return self.tokenizer.encode(*texts)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.batches.append(sum(map(len, texts)))
        return self.tokenizer.encode_batch(texts, **options)


@pytest.mark.parametrize("kind", KINDS)
@PROPERTY
@given(text=TEXTS)
def test_a_text_has_the_tokens_of_its_first_characters(kind, text):
    plain, truncating = tokenizers(kind)
    truncating.enable_truncation(LONGEST)  # other tests change it
    expected = truncating.encode(text[:LIMIT])
    assert prefix.encode(plain, [text], LONGEST) == (
        [expected.ids],
        [bool(expected.overflowing) or len(text) > LIMIT],
    )


@pytest.mark.parametrize("kind", PAIRED)
@pytest.mark.parametrize("longest", [LONGEST, LONGEST + 1])
@PROPERTY
@given(pair=st.tuples(TEXTS, TEXTS))
def test_two_texts_are_truncated_as_by_the_tokenizer(kind, longest, pair):
    plain, truncating = tokenizers(kind)
    limit = CHARACTERS * longest
    texts = tuple(text[:limit] for text in pair)
    counts = [len(plain.encode(text, add_special_tokens=False)) for text in texts]
    if min(counts) >= limit:  # both count as equally long
        return
    truncating.enable_truncation(longest)
    expected = truncating.encode(*texts)
    assert prefix.encode(plain, [pair], longest) == ([expected.ids], [bool(expected.overflowing) or texts != pair])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", ["ﷺ", "㌖", "字", "a", " ", "\u200b", "\x01", "e\u0301", "the film is "])
def test_the_characters_that_are_encoded_do_not_depend_on_the_text(kind, run):
    counting = Counting(tokenizers(kind)[0])
    _, truncated = prefix.encode(counting, [run * 100_000] * 2, LONGEST)
    assert truncated == [True, True]
    assert sum(counting.batches) <= 2 * (PREFIX + CHARACTERS) * LONGEST


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "sentencepiece", "embedded"])
def test_ordinary_text_needs_only_its_first_prefix(kind):
    counting = Counting(tokenizers(kind)[0])
    prefix.encode(counting, ["the film is not quite as dull as the book " * 1000], LONGEST)
    assert sum(counting.batches) <= PREFIX * LONGEST


def test_characters_that_expand_need_only_a_prefix():
    counting = Counting(tokenizers("embedded")[0])
    prefix.encode(counting, ["sentence: " + "ﷺ" * 20_000], LONGEST)
    assert sum(counting.batches) <= PREFIX * LONGEST


@pytest.mark.parametrize("kind", PAIRED)
@pytest.mark.parametrize("long", [0, 1])
def test_a_long_text_paired_with_a_short_one_needs_only_a_prefix(kind, long):
    counting = Counting(tokenizers(kind)[0])
    pair = ("a film", "the film is dull " * 1000) if long else ("the film is dull " * 1000, "a film")
    prefix.encode(counting, [pair], LONGEST)
    assert sum(counting.batches) <= PREFIX * LONGEST + len("a film")


def test_many_long_texts_are_encoded_in_batches():
    counting = Counting(tokenizers("embedded")[0])
    ids, _ = prefix.encode(counting, ["the film is dull " * 2000] * 100, 1000)
    assert max(counting.batches) <= BATCH
    assert ids == [ids[0]] * 100
    assert len(ids[0]) == 1000


def test_no_sources_have_no_tokens():
    assert prefix.encode(tokenizers("embedded")[0], [], LONGEST) == ([], [])


def test_a_run_longer_than_the_limit_ends_the_text():
    plain, _ = tokenizers("sentencepiece")
    (short, long), truncated = prefix.encode(plain, ["字" * LIMIT, "字" * LIMIT + " the film"], LONGEST)
    assert short == long
    assert truncated == [False, True]
