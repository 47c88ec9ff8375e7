"""The T5 family (Raffel et al. 2020) as a backbone, and how a small one is made: its tokenizer and its sizes.

T5, T5 v1.1, Flan-T5, mT5, UMT5 and ByT5 differ in activation, head, position biases and tokenizer, not in their parts.

Adapters sit in place of the `dropout` of each block's self-attention and feed-forward layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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

from hyperformer.backbones import loading
from hyperformer.backbones.base import Answers, Backbone, averaged
from hyperformer.backbones.scoring import TriePlan, attend
from hyperformer.backbones.t5_graph import T5Graph
from hyperformer.backbones.trie import trie
from hyperformer.config import BackboneSettings
from hyperformer.text import joined
from hyperformer.types import Batch, Example, HyperFormerError, Scoring, Site, Source

IGNORED = -100  # the target id of padding, which no loss counts
SENTINELS = 32  # span markers of a tokenizer made here
BYTE_SENTINELS = 125  # and of ByT5's
HEAD_START = 6.0  # by how much the score of what a head looks for exceeds any other's at the start


class T5Backbone(Backbone):
    """A model of the T5 family with sites for adapters.

    Args:
        model: a `T5ForConditionalGeneration`, or one of mT5 or UMT5.
        tokenizer: its fast tokenizer.
    """

    writes = True

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer)
        self.t5: Any = model

    @classmethod
    def load(cls, settings: BackboneSettings) -> T5Backbone:
        """The model and its tokenizer from a folder or a hub name, in float32; the weights must be safetensors."""
        if settings.max_target_tokens is None:
            raise HyperFormerError(
                f"the setting 'backbone.max_target_tokens' is missing; add it: {settings.path!r} writes its answers"
            )
        model = loading.weights(AutoModelForSeq2SeqLM, settings)
        tokenizer = loading.tokenizer(settings)
        if isinstance(tokenizer, ByT5Tokenizer):
            tokenizer = byte_tokenizer()
        return cls(model, loading.strict(tokenizer, settings, model.config.vocab_size, pairs=False))

    @classmethod
    def skeleton(cls, config: PretrainedConfig) -> T5Backbone:
        """The model without weights, on the meta device, and without a vocabulary: for counting."""
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(config)
        return cls(model, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))

    @property
    def width(self) -> int:
        """The width d of the hidden states."""
        return self.t5.model_dim

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the model knows."""
        return int(self.t5.config.vocab_size)

    def sites(self) -> list[Site]:
        """Every place where an adapter can sit."""
        return [
            Site(stack, layer, position)
            for stack in ("encoder", "decoder")
            for layer in range(len(getattr(self.t5, stack).block))
            for position in (0, 1)
        ]

    def sublayer(self, site: Site) -> Any:
        """The self-attention, first in its block, or the feed-forward, last in it."""
        return getattr(self.t5, site.stack).block[site.layer].layer[0 if site.position == 1 else -1]

    def freeze(self) -> None:
        """Leaves only the layer norms to train (HyperFormer, section 4)."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.endswith(("layer_norm.weight",)))

    def encode(self, examples: Sequence[Example], settings: BackboneSettings) -> list[dict[str, list[int]]]:
        """Token ids of each example, cut to the settings' lengths: `input_ids` and `labels`; both end in </s>."""
        if not examples:
            return []
        sources = self.encode_sources([joined(e.source) for e in examples], settings)
        targets = self.tokenizer([e.answer for e in examples], truncation=True, max_length=settings.max_target_tokens)
        return [
            {"input_ids": source, "labels": target}
            for source, target in zip(sources, targets["input_ids"], strict=True)
        ]

    def collate(self, rows: Sequence[dict[str, list[int]]], task_ids: Sequence[int]) -> Batch:
        """Encoded rows as a batch: `input_ids`, `attention_mask` [B, L], `labels` [B, T], padded to the longest."""
        tensors = self.padded([row["input_ids"] for row in rows], int(self.t5.config.pad_token_id))
        labels = nn.utils.rnn.pad_sequence(
            [torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=IGNORED
        )
        return Batch(torch.tensor(task_ids), {**tensors, "labels": labels})

    def template(self, source: Source) -> Source:
        """A text, or two with a blank between them."""
        return joined(source)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean of the encoder's last hidden states of each source, [B, d]."""
        encoded = self.t5.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return averaged(encoded.last_hidden_state, attention_mask)

    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Each row's mean label-smoothed cross-entropy over its answer's tokens, [B]."""
        labels = batch["labels"]  # [B, T]
        out = self.t5(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=self._shifted(labels),
            use_cache=False,
        )
        kept = labels != IGNORED  # [B, T]
        losses = torch.zeros(labels.shape, device=labels.device)
        losses[kept] = F.cross_entropy(
            out.logits[kept].float(), labels[kept], reduction="none", label_smoothing=label_smoothing
        )
        return losses.sum(1) / kept.sum(1)

    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Log-probability of each answer after each source; all rows are of one task. No dropout but the sublayers'.

        Args:
            input_ids, attention_mask: [B, L].
        Returns:
            [B, A], the sum of log-probabilities of an answer's tokens, </s> included.
        """
        plan = TriePlan(trie(answers.ids, scoring), self.t5.shared.weight)
        encoded = self.t5.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [B, L, d]
        decoded = self._decoded(plan, encoded, attention_mask)  # [B, N, d]
        if self.t5.config.tie_word_embeddings:
            decoded = decoded * self.t5.model_dim**-0.5
        head = self.t5.lm_head.weight  # [V, d]
        totals = (decoded @ head.T).logsumexp(-1, keepdim=True) if scoring == "likelihood" else None
        return plan.scores(decoded @ head[plan.edge_tokens].T, totals)

    def _decoded(self, plan: TriePlan, encoded: Tensor, attention_mask: Tensor) -> Tensor:
        """The decoder's last hidden state at every node of a trie, [B, N, d]: one row holds all answers."""
        decoder = self.t5.decoder
        hidden = decoder.embed_tokens(plan.tokens(self.t5.config.decoder_start_token_id)).unsqueeze(0)  # [1, N, d]
        padding = (1.0 - attention_mask[:, None, None, :].to(encoded.dtype)) * torch.finfo(encoded.dtype).min
        bias = plan.bias(decoder.block[0].layer[0].SelfAttention)
        for block in decoder.block:
            itself, across, forward = block.layer
            if itself.SelfAttention.has_relative_attention_bias:  # T5's first block alone, each of UMT5's
                bias = plan.bias(itself.SelfAttention)
            normed = itself.layer_norm(hidden)
            hidden = hidden + itself.dropout(attend(itself.SelfAttention, normed, normed, bias))
            normed = across.layer_norm(hidden)
            hidden = hidden + across.dropout(attend(across.EncDecAttention, normed, encoded, padding))
            hidden = hidden + forward.dropout(forward.DenseReluDense(forward.layer_norm(hidden)))
        return decoder.final_layer_norm(hidden)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, max_target_tokens: int, beams: int) -> list[str]:
        """The text that the model writes after each source; all rows are of one task.

        Args:
            input_ids, attention_mask: [B, L].
            beams: of beam search; 1 is greedy.
        """
        config = self.t5.config
        settings = GenerationConfig(
            max_new_tokens=max_target_tokens,
            num_beams=beams,
            do_sample=False,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            decoder_start_token_id=config.decoder_start_token_id,
        )
        # transformers' own choice of cache counts the encoder's layers, and fails where the decoder has more
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids = self.t5.generate(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=settings, past_key_values=cache
        )
        return [self._text(row) for row in ids.tolist()]

    def written(self, text: str) -> str:
        """A text as the model would write it: through its tokenizer and back."""
        return self._text(self.tokenizer(text)["input_ids"])

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()

    def generator(self) -> tuple[PreTrainedModel, bool]:
        """The plain model that writes, for exporters; and whether a head's width is the model's, shared out to them."""
        config = self.t5.config
        return self.t5, config.d_kv * config.num_heads == config.d_model

    def exportable(self, answers: Answers, scoring: Scoring, among: Sequence[Answers] = ()) -> T5Graph:
        """What an export target writes as a graph; the adapters must be constants. See `T5Graph`."""
        own = trie(answers.ids, scoring)
        most = max((len(trie(one.ids, scoring).tokens) for one in among), default=None)
        return T5Graph(self.t5, own, scoring, None if among else answers.numbers, most)

    def answers(self, texts: Sequence[str], numbers: Sequence[float] | None = None) -> Answers:
        """Token ids of answer texts.

        Raises:
            HyperFormerError: two answers encode to the same tokens, or one holds an unknown token.
        """
        ids = self.tokenizer(list(texts))["input_ids"]
        for text, tokens in zip(texts, ids, strict=True):
            if self.tokenizer.unk_token_id in tokens:
                raise HyperFormerError(
                    f"the answer {text!r} cannot be written with the backbone's vocabulary; choose other answer words"
                )
        for i, tokens in enumerate(ids):
            if tokens in ids[:i]:
                other = texts[ids.index(tokens)]
                raise HyperFormerError(
                    f"the answers {other!r} and {texts[i]!r} encode to the same tokens; choose words that differ"
                )
        return Answers(tuple(tuple(tokens) for tokens in ids), None if numbers is None else tuple(numbers))

    def _shifted(self, labels: Tensor) -> Tensor:
        """The decoder's inputs: labels one to the right, after the start token."""
        start = torch.full_like(labels[:, :1], self.t5.config.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1]], dim=1).clamp(min=self.t5.config.pad_token_id)

    def save(self, folder: Path) -> None:
        """The plain T5 and its tokenizer in transformers' layout, weights in half precision."""
        copy.deepcopy(self.t5).half().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """ByT5's tokenizer (Xue et al. 2022) as a fast one: a token a byte, after <pad> 0, </s> 1 and <unk> 2."""
    special = ["<pad>", "</s>", "<unk>"]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # `ByteLevel` writes other bytes as 256, 257, …
    others = [code for code in range(256) if code not in plain]
    characters = {code: chr(code) for code in plain} | {code: chr(256 + i) for i, code in enumerate(others)}
    vocabulary = {token: i for i, token in enumerate([*special, *(characters[code] for code in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(BYTE_SENTINELS)],
    )


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A lower-case byte-pair tokenizer of T5's layout (<pad> 0, </s> 1, <unk> 2, sentinels last) from `texts`.

    Frequent words become whole pieces as far as `vocabulary` reaches; the same texts give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - SENTINELS,
        min_frequency=2,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=[chr(code) for code in range(33, 127) if not chr(code).isupper()],
        limit_alphabet=200,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(SENTINELS)],
        model_max_length=512,
    )


def new(tokenizer: PreTrainedTokenizerFast, sizes: Mapping[str, Any]) -> T5Backbone:
    """An untrained T5 for `tokenizer`; `sizes` are fields of `T5Config`, with four heads or more.

    Draws from torch's random state. The first two heads of the encoder begin as ones that look one token back and one
    ahead, the next two as ones that look for the same word elsewhere; the first of the decoder looks back. From T5's
    own start, where position hardly counts, a small model needs many thousand steps to copy or compare at all.
    """
    config = T5Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    model = T5ForConditionalGeneration(config)
    here, back, ahead = 0, 1, config.relative_attention_num_buckets // 2 + 1  # buckets of the positions 0, -1, +1
    with torch.no_grad():
        encoder, decoder = (_attention(stack) for stack in (model.encoder, model.decoder))
        encoder[0].relative_attention_bias.weight[back, 0] += HEAD_START
        encoder[0].relative_attention_bias.weight[ahead, 1] += HEAD_START
        encoder[0].relative_attention_bias.weight[here, 2:4] -= HEAD_START
        decoder[0].relative_attention_bias.weight[back, 0] += HEAD_START
        for attention in encoder:
            rows = slice(2 * config.d_kv, 4 * config.d_kv)
            attention.q.weight[rows] *= HEAD_START**0.5  # a word's score with itself is 1 at T5's own start
            attention.k.weight[rows] = attention.q.weight[rows]
    return T5Backbone(model, tokenizer)


def _attention(stack: nn.Module) -> list[Any]:
    """The self-attentions of a stack."""
    blocks: Any = stack.get_submodule("block")
    return [block.layer[0].SelfAttention for block in blocks]
