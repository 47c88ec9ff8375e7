"""Small random encoders of every family, with the kind of tokenizer that each has on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from toys import method_settings, task_settings, toy_pairs, toy_sentences
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    ElectraConfig,
    ElectraModel,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizerFast,
)

from hyperformer.config import BackboneSettings, Tasks
from hyperformer.model import MultiTaskModel

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILY: dict[str, tuple[Any, type[PretrainedConfig], dict[str, Any]]] = {
    "bert": (BertModel, BertConfig, {"max_position_embeddings": 64}),
    "electra": (ElectraModel, ElectraConfig, {"max_position_embeddings": 64, "embedding_size": 12}),
    "roberta": (RobertaModel, RobertaConfig, {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1}),
    # two token types, of which its tokenizer uses one
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig, {"max_position_embeddings": 66, "pad_token_id": 1}),
}
SOURCE = "the film is dull"


def tasks() -> Tasks:
    """The toys, one of them with two texts."""
    given = task_settings()
    given["likeness"]["text"] = ["{a}", "{b}"]
    return Tasks(given)


def wordpieces(texts: list[str]) -> PreTrainedTokenizerFast:
    """Like MiniLM's: it holds every letter as a first piece of a word and as a later one, and its file pads."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    letters = sorted({letter for text in texts for letter in text.lower()} - {" "})
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *sorted(tokenizer.get_vocab())])
    tokenizer.model = models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=48)
    return BertTokenizerFast(tokenizer_object=tokenizer)


def bert_tokenizer(texts: list[str], **changes: bool) -> Tokenizer:
    """A WordPiece tokenizer that knows each letter of the texts, as a first piece and as a later one."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(**changes)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = {char for text in texts for char in text}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(letters - {" "}), *(f"##{char}" for char in sorted(letters))]
    made.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special[:4]))
    pieces = dict.fromkeys([*special, *sorted(made.get_vocab())])
    made.model = models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def byte_pairs(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return RobertaTokenizerFast(tokenizer_object=tokenizer)


def unigrams(texts: list[str]) -> PreTrainedTokenizerFast:
    """Its vocabulary holds the marks as words, as SentencePiece's do."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = dict.fromkeys(f"▁{word}" for text in texts for word in text.split())
    letters = dict.fromkeys(["▁", *"<>/[]", *(letter for text in texts for letter in text)])
    pieces = [(mark, 0.0) for mark in special] + [(word, -4.0) for word in words] + [(one, -9.0) for one in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return XLMRobertaTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {"roberta": byte_pairs, "xlm-roberta": unigrams}


def a_folder(folder: Path, name: str, texts: list[str], **changes: Any) -> Path:
    """A small random model of the family."""
    kind, config, sizes = FAMILY[name]
    tokenizer = TOKENIZERS.get(name, wordpieces)(texts)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = kind(config(vocab_size=len(tokenizer), **{**SIZES, **sizes, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def where(folder: Path, **changes: Any) -> BackboneSettings:
    return BackboneSettings(**{"path": str(folder), "max_source_tokens": 32, **changes})


def a_model(folder: Path, method: str = "hyperformer_plus_plus", **changes: Any) -> MultiTaskModel:
    torch.manual_seed(1)
    return MultiTaskModel(where(folder), method_settings(method, **changes), tasks())


ROWS: list[tuple[str, dict[str, Any]]] = [
    *(("mood", row) for row in toy_sentences()[:5:2]),
    *(("likeness", row) for row in toy_pairs()[:9:4]),
    *(("mood3", row) for row in toy_sentences()[1:6:2]),
]


def batch_of(model: MultiTaskModel, rows: list[tuple[str, dict[str, Any]]]) -> Any:
    encoded = [
        model.backbone.encode([model.tasks[task].example(row)], model.backbone_settings)[0] for task, row in rows
    ]
    return model.backbone.collate(encoded, [model.task_id(task) for task, _ in rows])


def trained(model: MultiTaskModel) -> MultiTaskModel:
    """The model after three steps on rows of all its tasks."""
    model.train()
    batch = batch_of(model, [row for row in ROWS if row[0] in model.groups[0]])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02, weight_decay=0.0)
    torch.manual_seed(0)
    for _ in range(3):
        optimiser.zero_grad()
        model(batch.task_ids, **batch.tensors)["loss"].backward()
        optimiser.step()
    return model.eval()


def rows_of(task: str) -> list[dict[str, Any]]:
    return [row for name, row in ROWS if name == task] * 2
