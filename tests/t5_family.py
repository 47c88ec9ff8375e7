"""Small random models of every member of the T5 family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from toys import Batch, method_settings, task_settings
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

from hyperformer.backbones import t5_tokenizers
from hyperformer.core.types import Example
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.settings import BackboneSettings, Tasks

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
"""In most, d_kv · heads is not d_model; in the last two, encoder and decoder have different depths."""
SOURCE = "sentence: the film is dull"


def save_sentencepiece(folder: Path, texts: list[str]) -> None:
    """Save a sentencepiece vocabulary without tokenizer.json, as in T5's and mT5's Hub repositories."""
    import sentencepiece

    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, *["0 1 2 3"] * 9]),  # often enough that the numbers enter the vocabulary
        model_prefix=str(folder / "spiece"),
        vocab_size=160,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **special,
    )
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 10}))


def save_backbone(folder: Path, name: str, texts: list[str], **changes: int) -> Path:
    """Save a small random model of the family, with the kind of tokenizer that it has on the Hub."""
    model_class, config, sizes = FAMILY[name]
    if name == "byt5":
        ByT5Tokenizer().save_pretrained(folder)
        vocabulary = 384
    elif name == "deep decoder":
        t5_tokenizers.train_tokenizer(texts, 240).save_pretrained(folder)
        vocabulary = 240
    else:
        save_sentencepiece(folder, texts)
        vocabulary = 176
    torch.manual_seed(0)
    model_class(config(vocab_size=vocabulary, **{**SIZES, **sizes, **changes})).save_pretrained(folder)
    return folder


def build_model(folder: Path) -> MultiTaskModel:
    torch.manual_seed(1)
    settings = BackboneSettings(path=str(folder), max_source_tokens=64, max_target_tokens=16)
    return MultiTaskModel(settings, method_settings("hyperformer_plus_plus"), Tasks(task_settings()))


def train_model(folder: Path) -> MultiTaskModel:
    """Train a model for three steps."""
    model = build_model(folder).train()
    rows = [("mood", SOURCE, "negative"), ("likeness", "a: book b: film", "2"), ("mood3", SOURCE, "quite bad")]
    encoded = model.backbone.encode_examples([Example(*row) for row in rows], model.backbone_settings)
    task_ids = torch.tensor([model.task_id(task) for task, _, _ in rows])
    batch = Batch(task_ids, model.backbone.collate(encoded))
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
