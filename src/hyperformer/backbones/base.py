"""What every backbone does; nothing above asks which family it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from hyperformer.backbones.adapters import AdapterPlaces
from hyperformer.types import AdapterWeights, Batch, Example, Site


class Backbone(nn.Module, ABC):
    """A pretrained model with places for adapters.

    Attributes:
        tokenizer: its fast tokenizer.
        places: where a forward pass finds its adapters.
    """

    tokenizer: PreTrainedTokenizerFast
    places: AdapterPlaces

    @property
    @abstractmethod
    def width(self) -> int:
        """The width d of the hidden states."""

    @abstractmethod
    def sites(self) -> list[Site]:
        """Every place for an adapter, in the order in which `AdapterWeights` stacks them."""

    @abstractmethod
    def freeze(self) -> None:
        """Leaves only the layer norms to train (HyperFormer, section 4)."""

    @abstractmethod
    def encode(self, examples: Sequence[Example], max_source_tokens: int) -> list[dict[str, list[int]]]:
        """Token ids of each example: `input_ids`, cut to `max_source_tokens`, and `labels`."""

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, list[int]]], task_ids: Sequence[int]) -> Batch:
        """Encoded rows as a batch: `input_ids`, `attention_mask` [B, L], `labels` [B, T], padded to the longest."""

    @abstractmethod
    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Each row's loss, [B]."""

    @abstractmethod
    def answer_ids(self, texts: Sequence[str]) -> Tensor:
        """Token ids of answer texts, [A, T].

        Raises:
            HyperFormerError: two answers encode to the same tokens, or one holds an unknown token.
        """

    @abstractmethod
    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Tensor) -> Tensor:
        """Log-likelihood of each answer after each source; all rows are of one task.

        Args:
            input_ids, attention_mask: [B, L].
            answers: what `answer_ids` gave, [A, T].
        Returns:
            [B, A].
        """

    @abstractmethod
    def baked(self, weights: AdapterWeights) -> Backbone:
        """A copy with the adapters of one task as constants: `weights` stacked over sites, n = 1."""

    @abstractmethod
    def exportable(self, answers: Sequence[str]) -> nn.Module:
        """What a graph computes: `input_ids`, `attention_mask` [B, L] → `scores`, `probabilities` [B, A]."""
