"""BERT-like encoders (Devlin et al. 2019) as a backbone: BERT and MiniLM, ELECTRA, RoBERTa and its kin.

Adapters sit in place of the `dropout` between a block's self-attention or feed-forward and their residual sum, which
the layer norm follows. A row's answer is read off the mean of its last hidden states, by a head for each task.

DistilBERT has no dropout after its attention, and ModernBERT none after either: there is no such place for an adapter,
so they are not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from hyperformer.backbones import heads, loading
from hyperformer.backbones.base import Answers, Backbone, averaged
from hyperformer.backbones.encoder_graph import EncoderGraph, segments
from hyperformer.config import BackboneSettings
from hyperformer.types import Batch, Example, HeadWeights, HyperFormerError, Scoring, Site, Source


class EncoderBackbone(Backbone):
    """An encoder with sites for adapters, answered through heads.

    Args:
        model: a `BertModel`, `ElectraModel` or `RobertaModel`.
        tokenizer: its fast tokenizer.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer)
        kind = getattr(model.config, "position_embedding_type", "absolute")
        if kind != "absolute":
            raise HyperFormerError(
                f"the backbone has {kind!r} position embeddings, expected 'absolute' ones; set backbone.path"
            )
        if hasattr(model, "pooler"):
            model.pooler = None  # the mean of all hidden states is read
        self.encoder = model
        self._separator = _separator(model.config, tokenizer)

    @classmethod
    def load(cls, settings: BackboneSettings) -> EncoderBackbone:
        """The model and its tokenizer from a folder or a hub name, in float32; the weights must be safetensors."""
        path = settings.path
        if settings.max_target_tokens is not None:
            raise HyperFormerError(
                f"backbone.max_target_tokens is {settings.max_target_tokens}, but {path!r} is an encoder, which writes "
                "no answers; leave it out"
            )
        model = loading.weights(AutoModel, settings, unread="pooler")
        longest = _longest(model)
        if settings.max_source_tokens > longest:
            raise HyperFormerError(
                f"backbone.max_source_tokens is {settings.max_source_tokens}, expected at most {longest}: {path!r} has "
                "no more positions"
            )
        tokenizer = loading.strict(loading.tokenizer(settings), settings, model.config.vocab_size, pairs=True)
        return cls(model, tokenizer)

    @classmethod
    def skeleton(cls, config: PretrainedConfig) -> EncoderBackbone:
        """The model without weights, on the meta device, and without a vocabulary: for counting."""
        with torch.device("meta"):
            model = AutoModel.from_config(config)
        return cls(model, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))

    @property
    def width(self) -> int:
        """The width d of the hidden states."""
        return int(self.encoder.config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the model knows."""
        return int(self.encoder.config.vocab_size)

    def sites(self) -> list[Site]:
        """Every place where an adapter can sit."""
        layers = range(len(self.encoder.encoder.layer))
        return [Site("encoder", layer, position) for layer in layers for position in (0, 1)]

    def sublayer(self, site: Site) -> Any:
        """What ends the self-attention, or the feed-forward, of a block."""
        layer = self.encoder.encoder.layer[site.layer]
        return layer.attention.output if site.position == 1 else layer.output

    def freeze(self) -> None:
        """Leaves only the layer norms to train (HyperFormer, section 4)."""
        norms = {id(p) for part in self.modules() if isinstance(part, nn.LayerNorm) for p in part.parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in norms)

    def answer_heads(self, numbers: Sequence[Sequence[float] | None], counts: Sequence[int]) -> heads.AnswerHeads:
        """How each task's answers are read off its head."""
        return heads.AnswerHeads(numbers, counts)

    def encode(self, examples: Sequence[Example], settings: BackboneSettings) -> list[dict[str, list[int]]]:
        """Token ids of each example, cut to the settings' length, two texts as the tokenizer pairs them: `input_ids`.

        `labels` holds the index of the answer.
        """
        if not examples:
            return []
        encoded = self.encode_sources([e.source for e in examples], settings)
        return [
            {"input_ids": ids, "labels": [] if e.label is None else [e.label]}
            for e, ids in zip(examples, encoded, strict=True)
        ]

    def template(self, source: Source) -> Source:
        """What a text or two are to the tokenizer: the same."""
        return source

    def collate(self, rows: Sequence[dict[str, list[int]]], task_ids: Sequence[int]) -> Batch:
        """Encoded rows as a batch: `input_ids`, `attention_mask` [B, L], `labels` [B, 1], padded to the longest."""
        tensors = self.padded([row["input_ids"] for row in rows], int(self.encoder.config.pad_token_id))
        return Batch(torch.tensor(task_ids), {**tensors, "labels": torch.tensor([row["labels"] for row in rows])})

    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Each row's label-smoothed cross-entropy among its task's answers, [B]."""
        found = self._logits(batch["input_ids"], batch["attention_mask"])
        return heads.loss(found, batch["labels"].squeeze(1), label_smoothing)

    def _logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Of as many answers as the largest task has, [B, A]."""
        assert self.places.head is not None  # the model hands one over
        return heads.logits(self.embed(input_ids, attention_mask), self.places.head)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean of the last hidden states of each source, [B, d]."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._separator is not None:
            given["token_type_ids"] = segments(input_ids, self._separator)
        return averaged(self.encoder(**given).last_hidden_state, attention_mask)

    def answers(self, texts: Sequence[str], numbers: Sequence[float] | None = None) -> Answers:
        """The places of answers in their task's head."""
        return Answers(tuple((place,) for place in range(len(texts))), None if numbers is None else tuple(numbers))

    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Log-probability of each answer of each source; all rows are of one task. Both scorings are the same here.

        Args:
            input_ids, attention_mask: [B, L].
        Returns:
            [B, A].
        """
        return self._logits(input_ids, attention_mask)[:, : len(answers.ids)].log_softmax(-1)

    def exportable(self, answers: Answers, scoring: Scoring, among: Sequence[Answers] = ()) -> EncoderGraph:
        """What an export target writes as a graph; adapters and head must be constants. See `EncoderGraph`."""
        head, count = self.places.head, len(answers.ids)
        assert head is not None
        own = HeadWeights(head.weight[0, :count], head.bias[0, :count])
        return EncoderGraph(self.encoder, own, None if among else answers.numbers, self._separator)


def _separator(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token that parts two texts of different token types; None where all tokens are of one.

    Raises:
        HyperFormerError: the tokenizer counts types otherwise than from a separator.
    """
    pair = tokenizer("a", "b")
    types = pair.get("token_type_ids", [])
    if config.type_vocab_size < 2 or not any(types):
        return None
    separator = tokenizer.sep_token_id
    if separator is None or segments(torch.tensor([pair["input_ids"]]), separator).tolist() != [types]:
        raise HyperFormerError(
            f"the tokenizer marks two texts by the token types {types}, expected 0 up to the first separator, and 1 "
            "after it, as BERT's; take another backbone"
        )
    return int(separator)


def _longest(model: Any) -> int:
    """How many tokens its positions suffice for; RoBERTa's begin after the one of padding."""
    first = getattr(model.embeddings, "padding_idx", -1) + 1
    return int(model.config.max_position_embeddings) - first
