"""A baked encoder and a task's head as one module to be traced: every weight a buffer, laid out as a graph uses it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from hyperformer.backbones.graph_parts import Adapter, outputs
from hyperformer.backbones.heads import NEVER
from hyperformer.types import HeadWeights


def segments(input_ids: Tensor, separator: int) -> Tensor:
    """0 up to the first separator and 1 after it, [B, L]: BERT's token types of two texts, or of one."""
    separators = (input_ids == separator).long()
    return ((separators.cumsum(1) - separators) > 0).long()


class Product(nn.Module):
    """x W + b, of a linear layer times `scale`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Any, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", scale * layer.weight.detach().T.contiguous())  # [inputs, outputs]
        self.register_buffer("bias", scale * layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Norm(nn.Module):
    """A layer norm."""

    gain: Tensor
    shift: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("gain", norm.weight.detach().clone())
        self.register_buffer("shift", norm.bias.detach().clone())
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gain, self.shift, self.eps)


class Embeddings(nn.Module):
    """Words, positions and token types, summed and normed; projected to the width where they have one of their own."""

    words: Tensor
    positions: Tensor
    types: Tensor

    def __init__(self, model: Any, separator: int | None) -> None:
        super().__init__()
        layer = model.embeddings
        self.separator = separator
        self.padding = getattr(layer, "padding_idx", None)  # RoBERTa counts positions from there
        types, positions = layer.token_type_embeddings.weight.detach(), layer.position_embeddings.weight.detach()
        self.register_buffer("words", layer.word_embeddings.weight.detach())
        self.register_buffer("positions", positions + types[0] if separator is None else positions.clone())
        if separator is not None:
            self.register_buffer("types", types.clone())
        self.norm = Norm(layer.LayerNorm)
        project = getattr(model, "embeddings_project", None)
        self.project = Product(project) if project is not None else nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = F.embedding(input_ids, self.words)  # [B, L, e]
        if self.separator is not None:
            found = found + F.embedding(segments(input_ids, self.separator), self.types)
        if self.padding is None:
            place = torch.arange(input_ids.shape[1], device=input_ids.device)
        else:
            place = attention_mask.cumsum(1) * attention_mask + self.padding
        return self.project(self.norm(found + F.embedding(place, self.positions)))


def gelu(x: Tensor) -> Tensor:
    """The exact GELU, written so that onnxruntime knows it."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


class Block(nn.Module):
    """Self-attention, then feed-forward: product, adapter, residual sum, norm."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        itself, ending = layer.attention.self, layer.attention.output
        self.heads, self.size = itself.num_attention_heads, itself.attention_head_size
        self.q, self.k, self.v = Product(itself.query, self.size**-0.5), Product(itself.key), Product(itself.value)
        self.o = Product(ending.dense)
        self.attention_adapter, self.attention_norm = Adapter(ending.dropout), Norm(ending.LayerNorm)
        ending = layer.output
        self.wi, self.wo = Product(layer.intermediate.dense), Product(ending.dense)
        self.adapter, self.norm = Adapter(ending.dropout), Norm(ending.LayerNorm)
        activation = layer.intermediate.intermediate_act_fn
        self.activation = gelu if isinstance(activation, GELUActivation) else activation

    def forward(self, hidden: Tensor, padding: Tensor) -> Tensor:
        """`padding` [B, 1, 1, L]."""
        q, k, v = (
            product(hidden).unflatten(-1, (self.heads, self.size)).transpose(1, 2)  # [B, H, L, dk]
            for product in (self.q, self.k, self.v)
        )
        shares = (q @ k.transpose(2, 3) + padding).softmax(-1)  # [B, H, L, L]
        attended = self.o((shares @ v).transpose(1, 2).flatten(2))
        hidden = self.attention_norm(hidden + self.attention_adapter(attended))
        return self.norm(hidden + self.adapter(self.wo(self.activation(self.wi(hidden)))))


class EncoderGraph(nn.Module):
    """`input_ids`, `attention_mask` [B, L] → `scores`, `probabilities` [B, A], and `value` [B] of a graded task.

    Args:
        model: an encoder whose adapters are constants.
        head: of the answers: weight [A, d], bias [A].
        numbers: what the answers stand for; None where they are no numbers.
        separator: the token that ends a text, where the second has a token type of its own; None elsewhere.
    """

    head: Tensor
    head_bias: Tensor
    numbers: Tensor

    @torch.no_grad()
    def __init__(self, model: Any, head: HeadWeights, numbers: Sequence[float] | None, separator: int | None) -> None:
        super().__init__()
        self.embeddings = Embeddings(model, separator)
        self.blocks = nn.ModuleList(Block(layer) for layer in model.encoder.layer)
        self.register_buffer("head", head.weight.T.contiguous())  # [d, A]
        self.register_buffer("head_bias", head.bias.clone())
        self.graded = numbers is not None
        if numbers is not None:
            self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.float32).unsqueeze(1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        mask = attention_mask.float()
        padding = (1.0 - mask)[:, None, None, :] * NEVER
        hidden = self.embeddings(input_ids, attention_mask)
        for block in self.blocks:
            hidden = block(hidden, padding)
        pooled = (mask.unsqueeze(1) @ hidden).squeeze(1) / mask.sum(1, keepdim=True)  # [B, d]
        scores = (pooled @ self.head + self.head_bias).log_softmax(-1)
        return outputs(scores, self.numbers if self.graded else None)
