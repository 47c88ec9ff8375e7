"""Training, scoring and baking of every member of the T5 family, loaded from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from t5_family import FAMILY, SIZES, SOURCE, build_model, save_backbone, save_sentencepiece, train_model
from transformers import (
    ByT5Tokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

from hyperformer.backbones import t5, t5_tokenizers
from hyperformer.core.types import Example, Scoring
from hyperformer.model.tensors import trained_tensors
from hyperformer.settings import BackboneSettings, EvaluationSettings


@pytest.fixture(scope="module", params=list(FAMILY))
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    return save_backbone(tmp_path_factory.mktemp("member"), request.param, texts)


def test_three_steps_change_layer_norms_and_the_method_and_nothing_else(member):
    before, after = build_model(member).state_dict(), train_model(member).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("method.") or name.endswith("layer_norm.weight")}


def test_a_baked_member_scores_as_the_model_does(member):
    model = train_model(member)
    baked = model.bake("mood3")
    encoded = baked.encode_examples([Example("mood3", SOURCE, "")], model.backbone_settings)
    batch = baked.collate(encoded)
    for scoring in get_args(Scoring):
        graph = baked.build_export_module(model.answers["mood3"], scoring)
        scores, probabilities = graph(batch["input_ids"], batch["attention_mask"])
        wanted = torch.tensor([model.scores("mood3", [SOURCE], 1, scoring)[0].values])
        torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(probabilities, wanted.softmax(-1), rtol=1e-5, atol=2e-5)


def test_scores_are_those_of_transformers_own_forward_pass(member):
    """Without adapters, the family's head, scaling and position biases are used."""
    model = build_model(member)
    plain = type(model.backbone.t5).from_pretrained(member).eval()
    answers = model.tasks["mood3"].answers
    encoded = model.backbone.encode_examples(
        [Example("mood3", SOURCE, answer) for answer in answers], model.backbone_settings
    )
    batch = model.backbone.collate(encoded)
    with torch.no_grad():
        ids = batch["input_ids"][:1], batch["attention_mask"][:1]
        scores = model.eval().backbone.scores(*ids, model.answers["mood3"], "likelihood")[0]
        for row, score in zip(encoded, scores, strict=True):
            labels = torch.tensor([row["labels"]])
            logits = plain(input_ids=ids[0], labels=labels).logits
            wanted = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).sum()
            torch.testing.assert_close(score, wanted, rtol=1e-5, atol=1e-5)


def test_a_member_generates_as_transformers_does(member):
    model = build_model(member).eval()
    plain = type(model.backbone.t5).from_pretrained(member).eval()
    ids = model.backbone.tokenizer(SOURCE, return_tensors="pt", return_token_type_ids=False)
    wanted = plain.generate(**ids, max_new_tokens=6, do_sample=False, use_cache=False)
    text = model.backbone.tokenizer.decode(wanted[0], skip_special_tokens=True).strip()
    assert model.backbone.generate(ids["input_ids"], ids["attention_mask"], 6, 1) == [text]
    model.generate("mood", [SOURCE], EvaluationSettings(batch_size=1, num_beams=3))


TEXTS = ["the film is dull", "  two  blanks", "déjà vu — 好!", "a</s>b", "tab\tand\nline"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_byte_tokenizer_gives_byt5s_tokens(text):
    ours, theirs = t5_tokenizers.build_byte_tokenizer(), ByT5Tokenizer()
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert len(ours) == len(theirs)
    plain = text.replace("</s>", "")
    assert ours.decode(ours(plain)["input_ids"], skip_special_tokens=True) == plain


def test_a_sentencepiece_vocabulary_is_read_as_sentencepiece_reads_it(tmp_path, texts):
    import sentencepiece

    save_sentencepiece(tmp_path, texts)
    T5ForConditionalGeneration(T5Config(vocab_size=176, num_layers=1, num_heads=2, **SIZES)).save_pretrained(tmp_path)
    settings = BackboneSettings(path=str(tmp_path), max_source_tokens=64, max_target_tokens=16)
    ours = t5.T5Backbone.load(settings).tokenizer
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for text in ("the film is dull", "dull", "a: the book b: film."):
        assert ours(text)["input_ids"] == [*theirs.encode(text), 1]


def test_the_trained_tensors_of_every_member_have_the_same_kinds_of_names(member):
    names = trained_tensors(build_model(member))
    assert {name.split(".")[0] for name in names} == {"backbone", "method"}
    assert all(name.endswith("layer_norm.weight") for name in names if name.startswith("backbone"))
