"""The T5 family (Raffel et al. 2020) as backbones, and a function that creates a small T5.

T5, T5 v1.1, Flan-T5, mT5, UMT5 and ByT5 have the same modules; they differ in activation, head, position biases and
tokenizer. Adapters replace the `dropout` of each block's self-attention and feed-forward layer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForSeq2SeqLM,
    ByT5Tokenizer,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from hyperformer.backbones import layers, loading, t5_layers
from hyperformer.backbones.base import Answers, GenerativeBackbone
from hyperformer.backbones.packing import Packing
from hyperformer.backbones.scoring import TriePlan, attend_to_states
from hyperformer.backbones.t5_graph import T5Graph
from hyperformer.backbones.t5_layers import EncodedSource
from hyperformer.backbones.t5_tokenizers import build_byte_tokenizer
from hyperformer.backbones.trie import build_trie
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.text import join_source
from hyperformer.core.types import Example, Scoring, Site, Source
from hyperformer.settings import BackboneSettings

IGNORED = -100  # label of padding, which the loss ignores
HEAD_START = 6.0  # initial advantage, in attention logits, of the tokens that a head of a new T5 is to attend to


class T5Backbone(GenerativeBackbone):
    """A model of the T5 family with adapter sites.

    Args:
        model: a `T5ForConditionalGeneration`, or its counterpart for mT5 or UMT5.
        tokenizer: the model's fast tokenizer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer)
        self.t5: Any = model

    @classmethod
    def load(cls, settings: BackboneSettings, empty: bool = False) -> T5Backbone:
        """Load the model in float32 and its tokenizer; see `Backbone.load`."""
        if settings.max_target_tokens is None:
            raise HyperFormerError(
                "the setting 'backbone.max_target_tokens' is missing; expected a value, as backbone "
                f"{settings.path!r} is a seq2seq model. Add the setting."
            )
        model = loading.load_weights(AutoModelForSeq2SeqLM, settings, empty=empty)
        tokenizer = loading.load_tokenizer(settings)
        if isinstance(tokenizer, ByT5Tokenizer):
            tokenizer = build_byte_tokenizer()
        return cls(model, loading.prepare_tokenizer(tokenizer, settings, model.config.vocab_size, pairs=False))

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> T5Backbone:
        """Build the model without weights and vocabulary, on the meta device, to count its parameters."""
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(config)
        return cls(model, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))

    @property
    def width(self) -> int:
        """The hidden size d."""
        return self.t5.model_dim

    @property
    def vocab_size(self) -> int:
        """The number of token embeddings of the model."""
        return int(self.t5.config.vocab_size)

    def sites(self) -> list[Site]:
        """Return every site where an adapter can be inserted."""
        return [
            Site(stack, layer, position)
            for stack in ("encoder", "decoder")
            for layer in range(len(getattr(self.t5, stack).block))
            for position in (0, 1)
        ]

    def sublayer(self, site: Site) -> Any:
        """Return the first layer of a block, self-attention, or its last layer, feed-forward."""
        return getattr(self.t5, site.stack).block[site.layer].layer[0 if site.position == 1 else -1]

    def freeze(self) -> None:
        """Freeze all parameters except the layer norms (HyperFormer, section 4)."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.endswith(("layer_norm.weight",)))

    def encode(
        self, sources: Sequence[Source], settings: BackboneSettings, targets: Sequence[str] | None = None
    ) -> list[dict[str, list[int]]]:
        """Encode sources into `input_ids`, and target texts into `labels`; both end in </s>. See `Backbone.encode`."""
        encoded = [{"input_ids": ids} for ids in self.encode_sources(list(map(join_source, sources)), settings)]
        if not targets:
            return encoded
        labels = self.tokenizer(list(targets), truncation=True, max_length=settings.max_target_tokens)["input_ids"]
        return [{**row, "labels": ids} for row, ids in zip(encoded, labels, strict=True)]

    def target(self, example: Example) -> str:
        """Return the text of the answer."""
        return example.answer

    def collate(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Pad encoded rows into `input_ids`, `attention_mask` [B, L] and, if the rows have them, `labels` [B, T]."""
        tensors = self.pad([row["input_ids"] for row in rows], int(self.t5.config.pad_token_id))
        if "labels" not in rows[0]:
            return tensors
        labels = [torch.tensor(row["labels"]) for row in rows]
        padded = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        return {**tensors, "labels": padded}

    def format_template(self, source: Source) -> Source:
        """Return the template as one text; two texts are joined with a space."""
        return join_source(source)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean of the encoder's last hidden states of each source, [B, d]."""
        hidden, packing = self._encode(input_ids, attention_mask)
        return packing.mean(hidden)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Packing]:
        """Return the encoder's last hidden states of the packed tokens, [N, d], and their places."""
        packing = Packing(attention_mask, self.active_weights.rows)
        return self._run_stack(self.t5.encoder, packing.pack(input_ids), packing), packing

    def _run_stack(self, stack: Any, tokens: Tensor, packing: Packing, source: EncodedSource | None = None) -> Tensor:
        """Return the last hidden states of a stack, [N, d].

        Args:
            stack: the encoder or the decoder.
            tokens: token ids, [N].
            packing: the places of the tokens.
            source: what the decoder attends to; None for the encoder.
        """
        dtype = layers.get_compute_dtype(tokens.device)
        with torch.autocast(tokens.device.type, enabled=False):
            hidden = stack.dropout(stack.embed_tokens(tokens).to(dtype))
            biases: list[Tensor] = []
            for block in stack.block:
                attention = block.layer[0].SelfAttention
                if attention.has_relative_attention_bias:  # T5's first block, every block of UMT5
                    biases = t5_layers.compute_position_biases(attention, packing, dtype, causal=source is not None)
                hidden = self._run_block(t5_layers.compute_block, self._linear, block, hidden, packing, biases, source)
            return stack.dropout(layers.rms_norm(hidden, stack.final_layer_norm))

    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Compute each row's mean label-smoothed cross-entropy over its answer's tokens, [B]."""
        labels = batch["labels"]  # [B, T]
        states, packing = self._encode(batch["input_ids"], batch["attention_mask"])
        targets = Packing((labels != IGNORED).long(), like=packing)
        source = EncodedSource(states, packing, targets, self.t5.config.d_kv)
        hidden = self._run_stack(self.t5.decoder, targets.pack(self._shift_right(labels)), targets, source)
        with torch.autocast(labels.device.type, enabled=False):
            if self.t5.config.tie_word_embeddings:
                hidden = hidden * self.t5.model_dim**-0.5
            logits = self._linear(hidden, self.t5.lm_head).float()
            expected = targets.pack(labels)
            losses = F.cross_entropy(logits, expected, reduction="none", label_smoothing=label_smoothing)
            return targets.mean(losses)

    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Sum the log-probabilities of each answer's tokens, </s> included, [B, A]; see `Backbone.scores`."""
        plan = TriePlan(build_trie(answers.ids, scoring), self.t5.shared.weight)
        states, packing = self._encode(input_ids, attention_mask)
        encoded = packing.unpack(states)  # [B, L, d]
        decoded = self._decode(plan, encoded, attention_mask)  # [B, N, d]
        if self.t5.config.tie_word_embeddings:
            decoded = decoded * self.t5.model_dim**-0.5
        head = self.t5.lm_head.weight  # [V, d]
        totals = (decoded @ head.T).logsumexp(-1, keepdim=True) if scoring == "likelihood" else None
        return plan.scores(decoded @ head[plan.edge_tokens].T, totals)

    def _decode(self, plan: TriePlan, encoded: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the decoder's last hidden state at every node of a trie, [B, N, d]."""
        decoder = self.t5.decoder
        hidden = decoder.embed_tokens(plan.tokens(self.t5.config.decoder_start_token_id)).unsqueeze(0)  # [1, N, d]
        padding = (1.0 - attention_mask[:, None, None, :].to(encoded.dtype)) * torch.finfo(encoded.dtype).min
        bias = plan.bias(decoder.block[0].layer[0].SelfAttention)
        for block in decoder.block:
            self_attention, cross_attention, feed_forward = block.layer
            if self_attention.SelfAttention.has_relative_attention_bias:  # T5's first block, every block of UMT5
                bias = plan.bias(self_attention.SelfAttention)
            normed = self_attention.layer_norm(hidden)
            hidden = hidden + self_attention.dropout(
                attend_to_states(self_attention.SelfAttention, normed, normed, bias)
            )
            normed = cross_attention.layer_norm(hidden)
            hidden = hidden + cross_attention.dropout(
                attend_to_states(cross_attention.EncDecAttention, normed, encoded, padding)
            )
            hidden = hidden + feed_forward.dropout(feed_forward.DenseReluDense(feed_forward.layer_norm(hidden)))
        return decoder.final_layer_norm(hidden)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, max_target_tokens: int, beams: int) -> list[str]:
        """Generate a text for each source; see `GenerativeBackbone.generate`."""
        config = self.t5.config
        settings = GenerationConfig(
            max_new_tokens=max_target_tokens,
            num_beams=beams,
            do_sample=False,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            decoder_start_token_id=config.decoder_start_token_id,
        )
        # transformers' default cache has a layer per encoder layer, and fails if the decoder has more layers
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids = self.t5.generate(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=settings, past_key_values=cache
        )
        return [self._decode_ids(row) for row in ids.tolist()]

    def normalize_answer(self, text: str) -> str:
        """Return a text as the model would generate it: encoded by the tokenizer and decoded again."""
        return self._decode_ids(self.tokenizer(text)["input_ids"])

    def _decode_ids(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()

    def get_seq2seq_model(self) -> tuple[PreTrainedModel, bool]:
        """Return the transformers model, and whether its attention heads together have the hidden size."""
        config = self.t5.config
        return self.t5, config.d_kv * config.num_heads == config.d_model

    def build_export_module(self, answers: Answers, scoring: Scoring, among: Sequence[Answers] = ()) -> T5Graph:
        """Build the module to export; the adapters must be constants. See `T5Graph`."""
        task_trie = build_trie(answers.ids, scoring)
        nodes = max((len(build_trie(other.ids, scoring).tokens) for other in among), default=None)
        return T5Graph(self.t5, task_trie, scoring, None if among else answers.numbers, nodes)

    def encode_answers(self, texts: Sequence[str], numbers: Sequence[float] | None = None) -> Answers:
        """Encode answers as their token ids, with </s>.

        Args:
            texts: the answers.
            numbers: numeric value of each answer, in a regression task.

        Raises:
            HyperFormerError: two answers encode to the same tokens, or an answer has unknown tokens.
        """
        ids = self.tokenizer(list(texts))["input_ids"]
        for text, tokens in zip(texts, ids, strict=True):
            if self.tokenizer.unk_token_id in tokens:
                raise HyperFormerError(
                    f"the answer {text!r} has tokens that are not in the backbone's vocabulary. Choose another text."
                )
        for i, tokens in enumerate(ids):
            if tokens in ids[:i]:
                other = texts[ids.index(tokens)]
                raise HyperFormerError(
                    f"the answers {other!r} and {texts[i]!r} encode to the same tokens. Choose texts that differ more."
                )
        return Answers(tuple(tuple(tokens) for tokens in ids), None if numbers is None else tuple(numbers))

    def _shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder's inputs: the start token, then all labels but the last."""
        start = torch.full_like(labels[:, :1], self.t5.config.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1]], dim=1).clamp(min=self.t5.config.pad_token_id)

    def save(self, folder: Path) -> None:
        """Save the T5 in half precision and its tokenizer, in the format of transformers."""
        copy.deepcopy(self.t5).half().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def create_backbone(tokenizer: PreTrainedTokenizerFast, sizes: Mapping[str, Any]) -> T5Backbone:
    """Create an untrained T5, initialized from PyTorch's random state.

    Initially, the first head of each encoder block attends to the previous token, the second to the next token, and the
    third and fourth to other occurrences of the same token. The first head of each decoder block attends to the
    previous token. With T5's usual initialization, positions have little influence, and a small model needs many
    thousand steps to learn to copy or compare.

    Args:
        tokenizer: the tokenizer, which determines the vocabulary size and the special tokens.
        sizes: fields of `T5Config`, with at least four heads.
    """
    config = T5Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    model = T5ForConditionalGeneration(config)
    same, previous, following = 0, 1, config.relative_attention_num_buckets // 2 + 1  # buckets of positions 0, -1, +1
    with torch.no_grad():
        encoder, decoder = (_self_attentions(stack) for stack in (model.encoder, model.decoder))
        encoder[0].relative_attention_bias.weight[previous, 0] += HEAD_START
        encoder[0].relative_attention_bias.weight[following, 1] += HEAD_START
        encoder[0].relative_attention_bias.weight[same, 2:4] -= HEAD_START
        decoder[0].relative_attention_bias.weight[previous, 0] += HEAD_START
        for attention in encoder:
            rows = slice(2 * config.d_kv, 4 * config.d_kv)
            attention.q.weight[rows] *= HEAD_START**0.5  # a token's logit with itself is about 1 initially
            attention.k.weight[rows] = attention.q.weight[rows]
    return T5Backbone(model, tokenizer)


def _self_attentions(stack: nn.Module) -> list[Any]:
    """Return the self-attention modules of a stack."""
    blocks: Any = stack.get_submodule("block")
    return [block.layer[0].SelfAttention for block in blocks]
