"""Small random encoders of every family, with the kind of tokenizer that each has on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from toys import Batch, method_settings, task_settings, toy_pairs, toy_sentences
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

from hyperformer.methods import group_tasks
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.settings import BackboneSettings, Tasks

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILY: dict[str, tuple[Any, type[PretrainedConfig], dict[str, Any]]] = {
    "bert": (BertModel, BertConfig, {"max_position_embeddings": 64}),
    "electra": (ElectraModel, ElectraConfig, {"max_position_embeddings": 64, "embedding_size": 12}),
    "roberta": (RobertaModel, RobertaConfig, {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1}),
    # it has two token types, but its tokenizer uses only one
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig, {"max_position_embeddings": 66, "pad_token_id": 1}),
}
SOURCE = "the film is dull"


def make_tasks() -> Tasks:
    """Return the toy tasks, one of them with two texts."""
    settings = task_settings()
    settings["likeness"]["text"] = ["{a}", "{b}"]
    return Tasks(settings)


def train_wordpieces(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer like MiniLM's, with each letter as first and later piece, and padding enabled."""
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


def train_bert_tokenizer(texts: list[str], **changes: bool) -> Tokenizer:
    """Train a WordPiece tokenizer with each letter of the texts as first and later piece of a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**changes)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = {char for text in texts for char in text}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(letters - {" "}), *(f"##{char}" for char in sorted(letters))]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special[:4]))
    pieces = dict.fromkeys([*special, *sorted(tokenizer.get_vocab())])
    tokenizer.model = models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def train_byte_pairs(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return RobertaTokenizerFast(tokenizer_object=tokenizer)


def build_unigrams(texts: list[str]) -> PreTrainedTokenizerFast:
    """Build a Unigram tokenizer whose vocabulary contains its special tokens as pieces, as SentencePiece's do."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    whole_words = dict.fromkeys(f"▁{word}" for text in texts for word in text.split())
    letters = dict.fromkeys(["▁", *"<>/[]", *(letter for text in texts for letter in text)])
    pieces = [(mark, 0.0) for mark in special] + [(word, -4.0) for word in whole_words]
    pieces += [(letter, -9.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return XLMRobertaTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {"roberta": train_byte_pairs, "xlm-roberta": build_unigrams}


def save_backbone(folder: Path, name: str, texts: list[str], **changes: Any) -> Path:
    """Save a small random model of the family."""
    model_class, config, sizes = FAMILY[name]
    tokenizer = TOKENIZERS.get(name, train_wordpieces)(texts)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = model_class(config(vocab_size=len(tokenizer), **{**SIZES, **sizes, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def encoder_settings(folder: Path, **changes: Any) -> BackboneSettings:
    return BackboneSettings(**{"path": str(folder), "max_source_tokens": 32, **changes})


def build_model(folder: Path, method: str = "hyperformer_plus_plus", **changes: Any) -> MultiTaskModel:
    torch.manual_seed(1)
    settings, tasks = method_settings(method, **changes), make_tasks()
    group = group_tasks(settings, list(tasks.root))[0]
    return MultiTaskModel(encoder_settings(folder), settings, tasks, group=group)


ROWS: list[tuple[str, dict[str, Any]]] = [
    *(("mood", row) for row in toy_sentences()[:5:2]),
    *(("likeness", row) for row in toy_pairs()[:9:4]),
    *(("mood3", row) for row in toy_sentences()[1:6:2]),
]


def make_batch(model: MultiTaskModel, rows: list[tuple[str, dict[str, Any]]]) -> Any:
    encoded = [
        model.backbone.encode_examples([model.tasks[task].make_example(row)], model.backbone_settings)[0]
        for task, row in rows
    ]
    task_ids = torch.tensor([model.task_id(task) for task, _ in rows])
    return Batch(task_ids, model.backbone.collate(encoded))


def train_model(model: MultiTaskModel) -> MultiTaskModel:
    """Train a model for three steps on rows of all its tasks."""
    model.train()
    batch = make_batch(model, [row for row in ROWS if row[0] in model.group])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02, weight_decay=0.0)
    torch.manual_seed(0)
    for _ in range(3):
        optimiser.zero_grad()
        model(batch.task_ids, **batch.tensors)["loss"].backward()
        optimiser.step()
    return model.eval()


def select_rows(task: str) -> list[dict[str, Any]]:
    return [row for name, row in ROWS if name == task] * 2
