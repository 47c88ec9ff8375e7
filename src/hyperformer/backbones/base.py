"""The interface of all backbones; other packages use it without knowing the model family."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.activations import ACT2FN

from hyperformer.backbones.adapters import ActiveWeights, AdapterSite, ConstantAdapter
from hyperformer.backbones.heads import AnswerHeads
from hyperformer.backbones.layers import LinearLayers
from hyperformer.core import prefix
from hyperformer.core.types import AdapterWeights, Example, HeadWeights, Scoring, Site, Source
from hyperformer.settings import BackboneSettings


@dataclass(frozen=True)
class Answers:
    """The encoded answers of a classification or regression task."""

    ids: tuple[tuple[int, ...], ...]
    """For each answer, its token ids with the end token; on an encoder, only its index among the answers."""
    numbers: tuple[float, ...] | None = None
    """Numeric value of each answer of a regression task; None for other tasks."""

    @property
    def longest(self) -> int:
        """The number of tokens of the longest answer."""
        return max(map(len, self.ids))


class Backbone(nn.Module, ABC):
    """A pretrained model with adapter sites.

    Attributes:
        tokenizer: the model's fast tokenizer.
        active_weights: the adapters and the head that a forward pass uses.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.active_weights = ActiveWeights()
        self._adapter_sites: list[Site] = []
        self._linear = LinearLayers()
        self._recomputes = False

    @classmethod
    @abstractmethod
    def load(cls, settings: BackboneSettings, empty: bool = False) -> Self:
        """Load the model in float32 and its tokenizer from a folder or the Hub; the weights must be safetensors.

        Args:
            settings: location and lengths of the backbone.
            empty: whether to leave the weights on the meta device, for checks.
        """

    @classmethod
    @abstractmethod
    def from_config(cls, config: PretrainedConfig) -> Self:
        """Build the model without weights and vocabulary, on the meta device, to count its parameters."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The hidden size d."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The number of token embeddings of the model."""

    @abstractmethod
    def sites(self) -> list[Site]:
        """Return every site where an adapter can be inserted."""

    @abstractmethod
    def sublayer(self, site: Site) -> Any:
        """Return the module whose `dropout` an adapter at the site replaces."""

    def insert_adapters(self, sites: Sequence[Site], activation: str) -> None:
        """Insert adapters at sites; call it only once.

        Args:
            sites: sites in the order in which `AdapterWeights` are stacked.
            activation: transformers' name of the adapters' activation function.
        """
        self.active_weights.activation = ACT2FN[activation]
        self._adapter_sites = list(sites)
        for index, site in enumerate(sites):
            sublayer = self.sublayer(site)
            sublayer.dropout = AdapterSite(index, self.active_weights, sublayer.dropout)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the activations of each block in the backward pass of training."""
        self._recomputes = True

    def _run_block(self, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Compute a block; with gradient checkpointing, it is computed again in the backward pass of training."""
        if not (self._recomputes and self.training and torch.is_grad_enabled()):
            return block(*inputs)
        use_same_weights = self.active_weights.capture()

        def run(*inputs: Any) -> Tensor:
            with use_same_weights():
                return block(*inputs)

        output: Tensor = checkpoint(run, *inputs, use_reentrant=False)
        return output

    @abstractmethod
    def freeze(self) -> None:
        """Freeze all parameters except the layer norms (HyperFormer, section 4)."""

    @abstractmethod
    def encode(
        self, sources: Sequence[Source], settings: BackboneSettings, targets: Sequence[Any] | None = None
    ) -> list[dict[str, list[int]]]:
        """Encode sources into `input_ids` and, if there are targets, `labels`, truncated to the settings' lengths.

        Args:
            sources: the sources.
            settings: the maximum lengths.
            targets: the training target of each source, as `target` returns it; None: no training.
        """

    @abstractmethod
    def target(self, example: Example) -> Any:
        """Return the training target of an example in the form that `encode` takes."""

    def encode_examples(self, examples: Sequence[Example], settings: BackboneSettings) -> list[dict[str, list[int]]]:
        """Encode examples into `input_ids` and `labels`."""
        targets = [self.target(example) for example in examples]
        return self.encode([example.source for example in examples], settings, targets)

    def encode_sources(self, sources: Sequence[Source], settings: BackboneSettings) -> list[list[int]]:
        """Encode sources into token ids, truncated to the settings' length, exactly as bundles do."""
        backend = self.tokenizer.backend_tokenizer
        # earlier calls of the tokenizer may have set these; a tokenizer that other threads use cannot be changed
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        if backend.encode_special_tokens != self.tokenizer.split_special_tokens:
            backend.encode_special_tokens = self.tokenizer.split_special_tokens
        return prefix.encode(backend, sources, settings.max_source_tokens)[0]

    @abstractmethod
    def format_template(self, source: Source) -> Source:
        """Return the template of one or two texts in the form that the tokenizer expects."""

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Pad encoded rows into `input_ids`, `attention_mask` [B, L] and, if the rows have them, `labels` [B, T]."""

    @staticmethod
    def pad(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
        """Pad token ids into `input_ids`, `attention_mask` [B, L]."""
        inputs = [torch.tensor(ids) for ids in rows]
        input_ids = nn.utils.rnn.pad_sequence(inputs, batch_first=True, padding_value=pad_id)
        lengths = torch.tensor([len(ids) for ids in inputs])
        mask = (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)).long()
        return {"input_ids": input_ids, "attention_mask": mask}

    @abstractmethod
    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean of the encoder's last hidden states of each source, [B, d]."""

    def answer_heads(self, numbers: Sequence[Sequence[float] | None], counts: Sequence[int]) -> AnswerHeads | None:
        """Return the mapping from head outputs to answers, or None if the backbone needs no heads.

        Args:
            numbers: for each task, the numeric values of its answers; None if it is not a regression task.
            counts: for each task, the number of answers.
        """
        return None

    @abstractmethod
    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Compute the loss of each row, [B]."""

    @abstractmethod
    def encode_answers(self, texts: Sequence[str], numbers: Sequence[float] | None = None) -> Answers:
        """Encode the answers of a task.

        Args:
            texts: the answers.
            numbers: numeric value of each answer, in a regression task.

        Raises:
            HyperFormerError: on a seq2seq backbone, two answers encode to the same tokens, or an answer has unknown
                tokens.
        """

    @abstractmethod
    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Return the log-probability of each answer for each source, [B, A]; all rows are of the same task.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L].
            answers: the task's A answers.
            scoring: normalization of the token probabilities.
        """

    def bake(self, weights: AdapterWeights | None, head: HeadWeights | None = None) -> Self:
        """Return a copy with one task's adapters and head merged in as constants.

        Args:
            weights: adapters of a single task (n = 1); None if the method has no adapters.
            head: head of the same task; None if the backbone has no heads.
        """
        copied = copy.deepcopy(self).eval()
        for index, site in enumerate(copied._adapter_sites):
            assert weights is not None  # only a method with adapters inserts them
            sublayer = copied.sublayer(site)
            sublayer.dropout = ConstantAdapter(weights, index, self.active_weights.activation, sublayer.dropout.dropout)
        if head is not None:
            copied.active_weights.constant_head = HeadWeights(head.weight.detach().clone(), head.bias.detach().clone())
        return copied

    @abstractmethod
    def build_export_module(self, answers: Answers, scoring: Scoring, among: Sequence[Answers] = ()) -> nn.Module:
        """Build the module to export: `input_ids`, `attention_mask` [B, L] → `scores`, `probabilities` [B, A].

        In a regression task, it also returns the expected `value` [B]. All weights are buffers; their names and shapes
        determine the computation. Adapters and head must be constants.

        Args:
            answers: the task's answers.
            scoring: normalization of the token probabilities.
            among: answers of all tasks that share one graph; empty if the task has its own graph. The modules of these
                tasks return no `value`, and the shapes of their buffers differ only in the numbers of answers and of
                the nodes and edges of their trie.
        """


class GenerativeBackbone(Backbone):
    """A seq2seq backbone, which can generate text; other backbones can only score the answers of a task."""

    @abstractmethod
    def generate(self, input_ids: Tensor, attention_mask: Tensor, max_target_tokens: int, beams: int) -> list[str]:
        """Generate a text for each source; all rows are of the same task.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L].
            max_target_tokens: maximum number of generated tokens.
            beams: number of beams; 1 is greedy decoding.
        """

    @abstractmethod
    def normalize_answer(self, text: str) -> str:
        """Return a text as the model would generate it: encoded by the tokenizer and decoded again."""

    @abstractmethod
    def get_seq2seq_model(self) -> tuple[PreTrainedModel, bool]:
        """Return the transformers model, and whether its attention heads together have the hidden size."""
