"""BERT-like encoders (Devlin et al. 2019) as backbones: BERT and MiniLM, ELECTRA, RoBERTa and its variants.

An adapter is inserted after a block's self-attention or feed-forward, before the residual sum and the layer norm; it
replaces the `dropout` there. A head per task computes the answer of a row from the mean of its last hidden states.

DistilBERT has no dropout after its attention, and ModernBERT has no dropout in its blocks. Neither is supported,
because adapters cannot be inserted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from hyperformer.backbones import heads, layers, loading
from hyperformer.backbones.base import Answers, Backbone
from hyperformer.backbones.encoder_graph import EncoderGraph, compute_token_types
from hyperformer.backbones.encoder_layers import compute_block
from hyperformer.backbones.packing import Packing
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Example, HeadWeights, Scoring, Site, Source
from hyperformer.settings import BackboneSettings


class EncoderBackbone(Backbone):
    """An encoder with adapter sites and a head per task.

    Args:
        model: a `BertModel`, `ElectraModel`, `RobertaModel`, `XLMRobertaModel` or `CamembertModel`.
        tokenizer: the model's fast tokenizer.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer)
        kind = getattr(model.config, "position_embedding_type", "absolute")
        if kind != "absolute":
            raise HyperFormerError(
                f"the backbone has {kind!r} position embeddings; expected 'absolute'. Set backbone.path to another "
                "model."
            )
        if getattr(model.config, "is_decoder", False):
            raise HyperFormerError(
                "the backbone's config.json has is_decoder: true; expected an encoder, whose tokens attend to all "
                "tokens. Set backbone.path to another model."
            )
        if hasattr(model, "pooler"):
            model.pooler = None  # the heads use the mean of all hidden states instead
        self.encoder = model
        self._separator = _find_separator(model.config, tokenizer)

    @classmethod
    def load(cls, settings: BackboneSettings, empty: bool = False) -> EncoderBackbone:
        """Load the model in float32 and its tokenizer; see `Backbone.load`."""
        path = settings.path
        if settings.max_target_tokens is not None:
            raise HyperFormerError(
                f"backbone.max_target_tokens is {settings.max_target_tokens}, but {path!r} is an encoder, which "
                "generates no text. Remove the setting."
            )
        model = loading.load_weights(AutoModel, settings, optional="pooler", empty=empty)
        positions = _count_positions(model)
        if settings.max_source_tokens > positions:
            raise HyperFormerError(
                f"backbone.max_source_tokens is {settings.max_source_tokens}; expected at most {positions}, the number "
                f"of positions of {path!r}. Lower the setting."
            )
        tokenizer = loading.load_tokenizer(settings)
        return cls(model, loading.prepare_tokenizer(tokenizer, settings, model.config.vocab_size, pairs=True))

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> EncoderBackbone:
        """Build the model without weights and vocabulary, on the meta device, to count its parameters."""
        with torch.device("meta"):
            model = AutoModel.from_config(config)
        return cls(model, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))

    @property
    def width(self) -> int:
        """The hidden size d."""
        return int(self.encoder.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        """The number of token embeddings of the model."""
        return int(self.encoder.config.vocab_size)

    def sites(self) -> list[Site]:
        """Return every site where an adapter can be inserted."""
        blocks = range(len(self.encoder.encoder.layer))
        return [Site("encoder", layer, position) for layer in blocks for position in (0, 1)]

    def sublayer(self, site: Site) -> Any:
        """Return the output module of a block's self-attention or feed-forward."""
        layer = self.encoder.encoder.layer[site.layer]
        return layer.attention.output if site.position == 1 else layer.output

    def freeze(self) -> None:
        """Freeze all parameters except the layer norms (HyperFormer, section 4)."""
        norms = {id(p) for module in self.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in norms)

    def answer_heads(self, numbers: Sequence[Sequence[float] | None], counts: Sequence[int]) -> heads.AnswerHeads:
        """Return the mapping from head outputs to answers; see `Backbone.answer_heads`."""
        return heads.AnswerHeads(numbers, counts)

    def encode(
        self, sources: Sequence[Source], settings: BackboneSettings, targets: Sequence[int] | None = None
    ) -> list[dict[str, list[int]]]:
        """Encode sources into `input_ids`, and the indices of answers into `labels`; see `Backbone.encode`.

        The tokenizer encodes two texts as a pair.
        """
        encoded = [{"input_ids": ids} for ids in self.encode_sources(sources, settings)]
        if targets is None:
            return encoded
        return [{**row, "labels": [index]} for row, index in zip(encoded, targets, strict=True)]

    def target(self, example: Example) -> int | None:
        """Return the index of the answer."""
        return example.label

    def format_template(self, source: Source) -> Source:
        """Return the template unchanged, because the tokenizer itself encodes two texts as a pair."""
        return source

    def collate(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Pad encoded rows into `input_ids`, `attention_mask` [B, L] and, if the rows have them, `labels` [B, 1]."""
        tensors = self.pad([row["input_ids"] for row in rows], int(self.encoder.config.pad_token_id))
        if "labels" not in rows[0]:
            return tensors
        return {**tensors, "labels": torch.tensor([row["labels"] for row in rows])}

    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Compute each row's label-smoothed cross-entropy over its task's answers, [B]."""
        logits = self._compute_logits(batch["input_ids"], batch["attention_mask"])
        return heads.compute_loss(logits, batch["labels"].squeeze(1), label_smoothing)

    def _compute_logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the logits of the answers, [B, A]; A is the number of answers of the task with the most answers."""
        assert self.active_weights.head is not None  # set by MultiTaskModel
        return heads.compute_logits(self.embed(input_ids, attention_mask), self.active_weights.head)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean of the last hidden states of each source, [B, d]."""
        packing = Packing(attention_mask, self.active_weights.rows)
        dtype = layers.get_compute_dtype(input_ids.device)
        with torch.autocast(input_ids.device.type, enabled=False):
            hidden = self._embed_tokens(input_ids, packing).to(dtype)  # [N, d]
            copies = self.encoder.config.num_attention_heads
            biases = [layers.mask_bias(group.mask, dtype, copies) for group in packing.groups]
            for block in self.encoder.encoder.layer:
                hidden = self._run_block(compute_block, self._linear, block, hidden, packing, biases)
            return packing.mean(hidden)

    def _embed_tokens(self, input_ids: Tensor, packing: Packing) -> Tensor:
        """Return the layer-normalized sum of token, position and token-type embeddings, projected, [N, d]."""
        layer, tokens = self.encoder.embeddings, packing.pack(input_ids)
        embedded = layer.word_embeddings(tokens)
        if self._separator is None:
            embedded = embedded + layer.token_type_embeddings.weight[0]
        else:
            types = packing.pack(compute_token_types(input_ids, self._separator))
            embedded = embedded + layer.token_type_embeddings(types)
        embedded = embedded + layer.position_embeddings(packing.positions + _first_position(self.encoder))
        embedded = layer.dropout(layer.LayerNorm(embedded))
        project = getattr(self.encoder, "embeddings_project", None)
        return embedded if project is None else project(embedded)

    def encode_answers(self, texts: Sequence[str], numbers: Sequence[float] | None = None) -> Answers:
        """Encode answers as their indices among the task's answers."""
        return Answers(tuple((index,) for index in range(len(texts))), None if numbers is None else tuple(numbers))

    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Return the log-probability of each answer for each source, [B, A]; all rows are of the same task.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L].
            answers: the task's A answers.
            scoring: ignored, because a head always normalizes over the task's answers.
        """
        return self._compute_logits(input_ids, attention_mask)[:, : len(answers.ids)].log_softmax(-1)

    def build_export_module(self, answers: Answers, scoring: Scoring, among: Sequence[Answers] = ()) -> EncoderGraph:
        """Build the module to export; adapters and head must be constants. See `EncoderGraph`."""
        head, count = self.active_weights.head, len(answers.ids)
        assert head is not None
        task_head = HeadWeights(head.weight[0, :count], head.bias[0, :count])
        return EncoderGraph(self.encoder, task_head, None if among else answers.numbers, self._separator)


def _find_separator(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the id of the token between two texts of different token types; None if all tokens have the same type.

    Raises:
        HyperFormerError: the token types are not 0 up to the first separator and 1 after it, as in BERT.
    """
    pair = tokenizer("a", "b")
    types = pair.get("token_type_ids", [])
    if config.type_vocab_size < 2 or not any(types):
        return None
    separator = tokenizer.sep_token_id
    if separator is None or compute_token_types(torch.tensor([pair["input_ids"]]), separator).tolist() != [types]:
        raise HyperFormerError(
            f"the tokenizer gives two texts the token types {types}; expected 0 up to the first separator and 1 after "
            "it, as in BERT. Use another backbone."
        )
    return int(separator)


def _count_positions(model: Any) -> int:
    """Return the maximum number of tokens."""
    return int(model.config.max_position_embeddings) - _first_position(model)


def _first_position(model: Any) -> int:
    """Return the position of the first token; RoBERTa's positions begin after the position of padding."""
    return int(getattr(model.embeddings, "padding_idx", -1)) + 1
