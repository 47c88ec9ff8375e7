"""Long texts: they have the same tokens as in training, and encoding them has a bounded cost."""

from __future__ import annotations

import pytest

from hyperformer.backbones import load as load_backbone
from hyperformer.core.prefix import CHARACTERS, PREFIX
from hyperformer.core.types import Example
from hyperformer.runtime import load

LONG = ["ﷺ" * 30_000, "a" * 30_000 + " film", " " * 30_000 + "film", "\u200b" * 30_000 + "film", "a dull film " * 3000]


class CountingTokenizer:
    """A tokenizer that counts the characters it encodes."""

    def __init__(self, tokenizer):
        self.tokenizer, self.characters = tokenizer, 0

    def encode(self, *texts):
        return self.tokenizer.encode(*texts)

    def encode_batch(self, texts, **options):
        self.characters += sum(map(len, texts))
        return self.tokenizer.encode_batch(texts, **options)


@pytest.mark.parametrize("folder", ["bundles", "shared_base"])
def test_a_bundle_encodes_a_bounded_number_of_characters(folder, request):
    bundle = load(request.getfixturevalue(folder))["mood"]
    counting = bundle._tokenizer = CountingTokenizer(bundle._tokenizer)
    answers = bundle.answer([{"sentence": text} for text in LONG])
    assert [answer.truncated for answer in answers] == [True] * len(LONG)
    longest = bundle.manifest.max_source_tokens
    assert counting.characters <= len(LONG) * (PREFIX + CHARACTERS) * longest


def test_a_long_text_has_the_same_tokens_in_training(bundles, backbone_settings):
    bundle, backbone = load(bundles / "mood"), load_backbone(backbone_settings)
    sources = [bundle.source({"sentence": text}) for text in [*LONG, "a film", ""]]
    encoded = backbone.encode_examples([Example("mood", source, "good") for source in sources], backbone_settings)
    ids, truncated = bundle.encode(sources)
    assert [row["input_ids"] for row in encoded] == ids
    assert truncated == [True] * len(LONG) + [False, False]


def test_other_calls_of_the_tokenizer_do_not_change_the_tokens_of_training(backbone, backbone_settings):
    examples = [Example("mood", source, "") for source in ("a film", "the film is dull " * 9)]
    expected = backbone.encode_examples(examples, backbone_settings)
    backbone.tokenizer(["a", "the film"], truncation=True, max_length=3, padding=True)
    assert backbone.encode_examples(examples, backbone_settings) == expected
