"""What every backbone does; nothing above asks which family it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from hyperformer.backbones.adapters import AdapterPlaces
from hyperformer.config import BackboneSettings
from hyperformer.types import AdapterWeights, Batch, Example, Scoring, Site


@dataclass(frozen=True)
class Answers:
    """A closed task's answers as token ids, each with its end."""

    ids: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return max(map(len, self.ids))


class Backbone(nn.Module, ABC):
    """A pretrained model with sites for adapters.

    Attributes:
        tokenizer: its fast tokenizer.
        places: where a forward pass finds its adapters.
    """

    tokenizer: PreTrainedTokenizerFast
    places: AdapterPlaces

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

    @abstractmethod
    def sites(self) -> list[Site]:
        """Every place where an adapter can sit."""

    @abstractmethod
    def place(self, sites: Sequence[Site], activation: str) -> None:
        """Puts places for adapters at these sites, once: `AdapterWeights` are stacked in this order.

        Args:
            activation: the adapters' non-linearity, a name that transformers knows.
        """

    @abstractmethod
    def freeze(self) -> None:
        """Leaves only the layer norms to train (HyperFormer, section 4)."""

    @abstractmethod
    def encode(self, examples: Sequence[Example], settings: BackboneSettings) -> list[dict[str, list[int]]]:
        """Token ids of each example, cut to the settings' lengths: `input_ids` and `labels`."""

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, list[int]]], task_ids: Sequence[int]) -> Batch:
        """Encoded rows as a batch: `input_ids`, `attention_mask` [B, L], `labels` [B, T], padded to the longest."""

    @abstractmethod
    def loss(self, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Each row's loss, [B]."""

    @abstractmethod
    def answers(self, texts: Sequence[str]) -> Answers:
        """Token ids of answer texts.

        Raises:
            HyperFormerError: two answers encode to the same tokens, or one holds an unknown token.
        """

    @abstractmethod
    def scores(self, input_ids: Tensor, attention_mask: Tensor, answers: Answers, scoring: Scoring) -> Tensor:
        """Log-probability of each answer after each source; all rows are of one task.

        Args:
            input_ids, attention_mask: [B, L].
        Returns:
            [B, A].
        """

    @abstractmethod
    def generate(self, input_ids: Tensor, attention_mask: Tensor, max_target_tokens: int, beams: int) -> list[str]:
        """The text that the model writes after each source; all rows are of one task.

        Args:
            input_ids, attention_mask: [B, L].
            beams: of beam search; 1 is greedy.
        """

    @abstractmethod
    def written(self, text: str) -> str:
        """A text as the model would write it: through its tokenizer and back."""

    @abstractmethod
    def baked(self, weights: AdapterWeights) -> Backbone:
        """A copy with the adapters of one task as constants: `weights` stacked over sites, n = 1."""

    @abstractmethod
    def exportable(self, answers: Answers, scoring: Scoring, numbers: Sequence[float] | None) -> nn.Module:
        """What a graph computes: `input_ids`, `attention_mask` [B, L] → `scores`, `probabilities` [B, A].

        Where `numbers` says what the answers stand for, also the `value` [B] that they expect. All weights are buffers,
        and what the module does follows from their names and shapes.
        """
