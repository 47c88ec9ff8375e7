"""The T5 family (Raffel et al. 2020) as backbones, and functions that create a small T5 and its tokenizer.

T5, T5 v1.1, Flan-T5, mT5, UMT5 and ByT5 have the same modules; they differ in activation, head, position biases and
tokenizer. Adapters replace the `dropout` of each block's self-attention and feed-forward layer.
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
from hyperformer.backbones.base import Answers, GenerativeBackbone, pool_mean
from hyperformer.backbones.scoring import TriePlan, attend
from hyperformer.backbones.t5_graph import T5Graph
from hyperformer.backbones.trie import build_trie
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.text import join_source
from hyperformer.core.types import Example, Scoring, Site, Source
from hyperformer.settings import BackboneSettings

IGNORED = -100  # label of padding, which the loss ignores
SENTINELS = 32  # sentinel tokens of a tokenizer from `train_tokenizer`
BYTE_SENTINELS = 125  # sentinel tokens of ByT5's tokenizer
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
        encoded = self.t5.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return pool_mean(encoded.last_hidden_state, attention_mask)

    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Compute each row's mean label-smoothed cross-entropy over its answer's tokens, [B]."""
        labels = batch["labels"]  # [B, T]
        out = self.t5(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=self._shift_right(labels),
            use_cache=False,
        )
        mask = labels != IGNORED  # [B, T]
        losses = torch.zeros(labels.shape, device=labels.device)
        losses[mask] = F.cross_entropy(
            out.logits[mask].float(), labels[mask], reduction="none", label_smoothing=label_smoothing
        )
        return losses.sum(1) / mask.sum(1)

    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Sum the log-probabilities of each answer's tokens, </s> included, [B, A]; see `Backbone.scores`."""
        plan = TriePlan(build_trie(answers.ids, scoring), self.t5.shared.weight)
        encoded = self.t5.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [B, L, d]
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
            hidden = hidden + self_attention.dropout(attend(self_attention.SelfAttention, normed, normed, bias))
            normed = cross_attention.layer_norm(hidden)
            hidden = hidden + cross_attention.dropout(attend(cross_attention.EncDecAttention, normed, encoded, padding))
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


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build ByT5's tokenizer (Xue et al. 2022) as a fast one: <pad> 0, </s> 1, <unk> 2, then a token per byte."""
    special = ["<pad>", "</s>", "<unk>"]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # `ByteLevel` maps other bytes to 256, 257, …
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
    """Train a lower-case byte-pair tokenizer with the layout of T5's: <pad> 0, </s> 1, <unk> 2, sentinels last.

    The same texts give the same tokenizer.

    Args:
        texts: the training corpus.
        vocabulary: maximum number of tokens, sentinels included.
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
