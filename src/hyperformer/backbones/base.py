"""What every backbone does; nothing above asks which family it is."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.activations import ACT2FN

from hyperformer import prefix
from hyperformer.backbones.adapters import AdapterPlaces, AdapterSite, ConstantAdapter
from hyperformer.backbones.heads import AnswerHeads
from hyperformer.config import BackboneSettings
from hyperformer.types import AdapterWeights, Batch, Example, HeadWeights, Scoring, Site, Source


@dataclass(frozen=True)
class Answers:
    """A closed task's answers as a backbone tells them apart.

    `ids` are the tokens of each with its end, or its place in a head; `numbers` what they stand for, None where they
    are no numbers.
    """

    ids: tuple[tuple[int, ...], ...]
    numbers: tuple[float, ...] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return max(map(len, self.ids))


def averaged(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of hidden states [B, L, d] over each row's own tokens, [B, d]."""
    mask = attention_mask.unsqueeze(2).to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


class Backbone(nn.Module, ABC):
    """A pretrained model with sites for adapters.

    Attributes:
        tokenizer: its fast tokenizer.
        places: where a forward pass finds its adapters, and its head.
        writes: whether it can write answers; others can only tell given ones apart.
    """

    writes: ClassVar[bool] = False

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.places = AdapterPlaces()
        self._placed: list[Site] = []

    @classmethod
    @abstractmethod
    def load(cls, settings: BackboneSettings) -> Self:
        """The model and its tokenizer from a folder or a hub name, in float32; the weights must be safetensors."""

    @classmethod
    @abstractmethod
    def skeleton(cls, config: PretrainedConfig) -> Self:
        """The model without weights, on the meta device, and without a vocabulary: for counting."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The width d of the hidden states."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """The number of tokens that the model knows."""

    @abstractmethod
    def sites(self) -> list[Site]:
        """Every place where an adapter can sit."""

    @abstractmethod
    def sublayer(self, site: Site) -> Any:
        """The module whose `dropout` is the site's place."""

    def place(self, sites: Sequence[Site], activation: str) -> None:
        """Puts places for adapters at these sites, once: `AdapterWeights` are stacked in this order.

        Args:
            activation: the adapters' non-linearity, a name that transformers knows.
        """
        self.places.activation = ACT2FN[activation]
        self._placed = list(sites)
        for index, site in enumerate(sites):
            sublayer = self.sublayer(site)
            sublayer.dropout = AdapterSite(index, self.places, sublayer.dropout)

    def checkpoint_gradients(self) -> None:
        """Makes training compute the activations of a block anew in the backward pass."""
        blocks: list[Any] = [module for module in self.modules() if hasattr(module, "gradient_checkpointing")]
        for block in blocks:
            block.gradient_checkpointing, block._gradient_checkpointing_func = True, self._recomputed

    def _recomputed(self, block: Callable[..., Any], *tensors: Any) -> Any:
        placed = self.places.placed()

        def run(*given: Any) -> Any:
            with placed():
                return block(*given)

        return checkpoint(run, *tensors, use_reentrant=False)

    @abstractmethod
    def freeze(self) -> None:
        """Leaves only the layer norms to train (HyperFormer, section 4)."""

    @abstractmethod
    def encode(self, examples: Sequence[Example], settings: BackboneSettings) -> list[dict[str, list[int]]]:
        """Each example's `input_ids`, cut to the settings' lengths, and `labels`: what it is to learn."""

    def encode_sources(self, sources: Sequence[Source], settings: BackboneSettings) -> list[list[int]]:
        """Encode sources into token ids, truncated to the settings' length, as a bundle encodes them."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()  # calls of the tokenizer leave theirs
        backend.no_padding()
        backend.encode_special_tokens = self.tokenizer.split_special_tokens
        return prefix.encode(backend, sources, settings.max_source_tokens)[0]

    @abstractmethod
    def template(self, source: Source) -> Source:
        """The template of a text or two, as its tokenizer takes them."""

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, list[int]]], task_ids: Sequence[int]) -> Batch:
        """Encoded rows as a batch: `input_ids`, `attention_mask` [B, L], `labels` [B, T], padded to the longest."""

    @staticmethod
    def padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
        """Token ids as `input_ids`, `attention_mask` [B, L]."""
        inputs = [torch.tensor(ids) for ids in rows]
        input_ids = nn.utils.rnn.pad_sequence(inputs, batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(ids) for ids in inputs])
        mask = (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)).long()
        return {"input_ids": input_ids, "attention_mask": mask}

    @abstractmethod
    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean of an encoder's last hidden states of each source, [B, d]."""

    def answer_heads(self, numbers: Sequence[Sequence[float] | None], counts: Sequence[int]) -> AnswerHeads | None:
        """How each task's answers are read off its head; None where no head is needed.

        Args:
            numbers: of each task: what its answers stand for, None where they are no numbers.
            counts: how many answers it has.
        """
        return None

    @abstractmethod
    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Each row's loss, [B]."""

    @abstractmethod
    def answers(self, texts: Sequence[str], numbers: Sequence[float] | None = None) -> Answers:
        """A closed task's answers, from their texts and what these stand for.

        Raises:
            HyperFormerError: two answers cannot be told apart, or one cannot be written.
        """

    @abstractmethod
    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Log-probability of each answer after each source; all rows are of one task.

        Args:
            input_ids, attention_mask: [B, L].
        Returns:
            [B, A].
        """

    def generate(self, input_ids: Tensor, attention_mask: Tensor, max_target_tokens: int, beams: int) -> list[str]:
        """The text that the model writes after each source; all rows are of one task.

        Args:
            input_ids, attention_mask: [B, L].
            beams: of beam search; 1 is greedy.
        """
        raise NotImplementedError  # `writes` says so

    def written(self, text: str) -> str:
        """A text as the model would write it: through its tokenizer and back."""
        raise NotImplementedError

    def generator(self) -> tuple[PreTrainedModel, bool]:
        """The plain model that writes, for exporters; and whether a head's width is the model's, shared out to them."""
        raise NotImplementedError

    def baked(self, weights: AdapterWeights | None, head: HeadWeights | None = None) -> Self:
        """A copy with one task's adapters and head as constants, as far as there are any: n = 1."""
        copied = copy.deepcopy(self).eval()
        for index, site in enumerate(copied._placed):
            assert weights is not None  # the method has adapters, or nothing is placed
            sublayer = copied.sublayer(site)
            sublayer.dropout = ConstantAdapter(weights, index, self.places.activation, sublayer.dropout.dropout)
        if head is not None:
            copied.places.head = HeadWeights(head.weight.detach().clone(), head.bias.detach().clone())
        return copied

    @abstractmethod
    def exportable(self, answers: Answers, scoring: Scoring, among: Sequence[Answers] = ()) -> nn.Module:
        """What a graph computes: `input_ids`, `attention_mask` [B, L] → `scores`, `probabilities` [B, A].

        Where answers stand for numbers, also the `value` [B] that they expect. All weights are buffers, and what the
        module does follows from their names and shapes.

        Args:
            among: the answers of all tasks that one graph is to serve: then what the module does is the same for each
                of them but for the sizes N, E and A of their answers, and there is no `value`.
        """
