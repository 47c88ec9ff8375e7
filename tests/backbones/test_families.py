"""Every member of the T5 family from a folder on disk, through the real loading code: it learns, answers and bakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import onnxruntime
import pytest
import torch
from toys import method_settings, run_python, task_settings
from transformers import (
    ByT5Tokenizer,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from hyperformer.backbones import t5
from hyperformer.config import BackboneSettings, EvaluationSettings, ExportSettings, Tasks
from hyperformer.export.classifier import Classifier
from hyperformer.manifest import GRAPH
from hyperformer.model import SCORED, MultiTaskModel, trained_tensors
from hyperformer.types import Example, Scoring

SIZES = {"d_model": 16, "d_ff": 24, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAMILY: dict[str, tuple[type[PreTrainedModel], Any, dict[str, Any]]] = {
    "t5": (T5ForConditionalGeneration, T5Config, {"num_layers": 2, "num_heads": 4, "d_kv": 4}),
    "t5 v1.1, flan": (T5ForConditionalGeneration, T5Config, {"num_layers": 2, "num_heads": 3, "d_kv": 4, **GATED}),
    "mt5": (MT5ForConditionalGeneration, MT5Config, {"num_layers": 2, "num_heads": 3, "d_kv": 8, **GATED}),
    "umt5": (UMT5ForConditionalGeneration, UMT5Config, {"num_layers": 2, "num_heads": 4, "d_kv": 6, **GATED}),
    "byt5": (T5ForConditionalGeneration, T5Config, {"num_layers": 3, "num_decoder_layers": 1, "num_heads": 2, **GATED}),
    "deep decoder": (T5ForConditionalGeneration, T5Config, {"num_layers": 1, "num_decoder_layers": 3, "num_heads": 4}),
}
"""d_kv · heads is not d_model in most, and encoder and decoder are of different depth in the last two."""
SOURCE = "sentence: the film is dull"
ANSWERS = """
import json, sys, torch
torch.set_num_threads(1)
from hyperformer.model import MultiTaskModel
model = MultiTaskModel.from_pretrained(sys.argv[1])
print(json.dumps([s.values for s in model.scores("mood", [sys.argv[2]] * 2, 2)]))
"""


def sentencepiece_folder(folder: Path, texts: list[str]) -> None:
    """A folder with a sentencepiece vocabulary, as T5's and mT5's hub folders have, and no tokenizer.json."""
    import sentencepiece

    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, *["0 1 2 3"] * 9]),  # numbers often enough to be in the vocabulary
        model_prefix=str(folder / "spiece"),
        vocab_size=160,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **special,
    )
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 10}))


@pytest.fixture(scope="module", params=list(FAMILY))
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A small random model of the family, with the kind of tokenizer that it has on the hub."""
    folder = tmp_path_factory.mktemp("member")
    kind, config, sizes = FAMILY[request.param]
    if request.param == "byt5":
        ByT5Tokenizer().save_pretrained(folder)
        vocabulary = 384
    elif request.param == "deep decoder":
        t5.train_tokenizer(texts, 240).save_pretrained(folder)
        vocabulary = 240
    else:
        sentencepiece_folder(folder, texts)
        vocabulary = 176
    torch.manual_seed(0)
    kind(config(vocab_size=vocabulary, **SIZES, **sizes)).save_pretrained(folder)
    return folder


def a_model(folder: Path) -> MultiTaskModel:
    torch.manual_seed(1)
    where = BackboneSettings(path=str(folder), max_source_tokens=64, max_target_tokens=16)
    return MultiTaskModel(where, method_settings("hyperformer_plus_plus"), Tasks(task_settings()))


def trained(folder: Path) -> MultiTaskModel:
    """The model after three steps."""
    model = a_model(folder).train()
    rows = [("mood", SOURCE, "negative"), ("likeness", "a: book b: film", "2"), ("mood3", SOURCE, "quite bad")]
    encoded = model.backbone.encode([Example(*row) for row in rows], model.backbone_settings)
    batch = model.backbone.collate(encoded, [model.task_id(task) for task, _, _ in rows])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05, weight_decay=0.0)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = model(batch.task_ids, **batch.tensors)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    return model.eval()


def test_three_steps_change_the_answers_and_a_new_process_gives_the_same(member, tmp_path):
    before = a_model(member).scores("mood", [SOURCE] * 2, 2)
    model = trained(member)
    wanted = model.scores("mood", [SOURCE] * 2, 2)
    assert max(abs(a - b) for a, b in zip(wanted[0].values, before[0].values, strict=True)) > 1e-2
    model.save_pretrained(tmp_path)
    found = run_python(ANSWERS, tmp_path, SOURCE)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == [list(scores.values) for scores in wanted]


def test_three_steps_change_layer_norms_and_the_method_and_nothing_else(member):
    before, after = a_model(member).state_dict(), trained(member).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("method.") or name.endswith("layer_norm.weight")}


def test_a_baked_member_scores_as_the_model_does(member):
    model = trained(member)
    baked = model.bake("mood3")
    encoded = baked.encode([Example("mood3", SOURCE, "")], model.backbone_settings)
    batch = baked.collate(encoded, [0]).tensors
    for scoring in get_args(Scoring):
        graph = baked.exportable(model.answers["mood3"], scoring)
        scores, probabilities = graph(batch["input_ids"], batch["attention_mask"])
        wanted = torch.tensor([model.scores("mood3", [SOURCE], 1, scoring)[0].values])
        torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(probabilities, wanted.softmax(-1), rtol=1e-5, atol=2e-5)


def test_an_exported_member_scores_as_the_model_does(member, tmp_path):
    model = trained(member)
    settings = ExportSettings(opset=18, tolerance=1e-4)
    Classifier(model, settings, SCORED).write(model.tasks["likeness"], tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / GRAPH, providers=["CPUExecutionProvider"])
    sources = ["a: book b: film", "a: the film is dull b: the song is wonderful"]
    rows = model.backbone.encode([Example("likeness", source, "") for source in sources], model.backbone_settings)
    batch = {
        name: model.backbone.collate(rows, [0, 0]).tensors[name].numpy() for name in ("input_ids", "attention_mask")
    }
    scores, value = session.run(["scores", "value"], batch)
    for i, answer in enumerate(model.answer("likeness", [{"a": "book", "b": "film"}])):
        assert value[i] == pytest.approx(answer.value, abs=1e-4)
    wanted = [s.values for s in model.scores("likeness", sources, 2)]
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(wanted), rtol=0, atol=1e-4)


def test_scores_are_those_of_transformers_own_forward_pass(member):
    """Without adapters: head, scaling and position biases are the family's own."""
    model = a_model(member)
    plain = type(model.backbone.t5).from_pretrained(member).eval()
    answers = model.tasks["mood3"].answers
    encoded = model.backbone.encode([Example("mood3", SOURCE, answer) for answer in answers], model.backbone_settings)
    batch = model.backbone.collate(encoded, [0] * len(answers)).tensors
    with torch.no_grad():
        ids = batch["input_ids"][:1], batch["attention_mask"][:1]
        found = model.eval().backbone.scores(*ids, model.answers["mood3"], "likelihood")[0]
        for row, score in zip(encoded, found, strict=True):
            labels = torch.tensor([row["labels"]])
            logits = plain(input_ids=ids[0], labels=labels).logits
            wanted = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).sum()
            torch.testing.assert_close(score, wanted, rtol=1e-5, atol=1e-5)


def test_a_member_generates_as_transformers_does(member):
    model = a_model(member).eval()
    plain = type(model.backbone.t5).from_pretrained(member).eval()
    ids = model.backbone.tokenizer(SOURCE, return_tensors="pt", return_token_type_ids=False)
    wanted = plain.generate(**ids, max_new_tokens=6, do_sample=False, use_cache=False)
    text = model.backbone.tokenizer.decode(wanted[0], skip_special_tokens=True).strip()
    assert model.backbone.generate(ids["input_ids"], ids["attention_mask"], 6, 1) == [text]
    model.generate("mood", [SOURCE], EvaluationSettings(batch_size=1, beams=3))


TEXTS = ["the film is dull", "  two  blanks", "déjà vu — 好!", "a</s>b", "tab\tand\nline"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_byte_tokenizer_gives_byt5s_tokens(text):
    ours, theirs = t5.byte_tokenizer(), ByT5Tokenizer()
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert len(ours) == len(theirs)
    plain = text.replace("</s>", "")
    assert ours.decode(ours(plain)["input_ids"], skip_special_tokens=True) == plain


def test_a_vocabulary_of_sentencepiece_is_read_as_sentencepiece_reads_it(tmp_path, texts):
    import sentencepiece

    sentencepiece_folder(tmp_path, texts)
    T5ForConditionalGeneration(T5Config(vocab_size=176, num_layers=1, num_heads=2, **SIZES)).save_pretrained(tmp_path)
    where = BackboneSettings(path=str(tmp_path), max_source_tokens=64, max_target_tokens=16)
    ours = t5.T5Backbone.load(where).tokenizer
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for text in ("the film is dull", "dull", "a: the book b: film."):
        assert ours(text)["input_ids"] == [*theirs.encode(text), 1]


def test_the_trained_tensors_of_every_member_have_the_same_kinds_of_names(member):
    names = trained_tensors(a_model(member))
    assert {name.split(".")[0] for name in names} == {"backbone", "method"}
    assert all(name.endswith("layer_norm.weight") for name in names if name.startswith("backbone"))
