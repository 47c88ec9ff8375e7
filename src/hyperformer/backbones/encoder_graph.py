"""An encoder and a task's head as one module to trace: every weight is a buffer in the layout of the ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from hyperformer.backbones.graph_parts import Adapter, collect_outputs
from hyperformer.backbones.heads import MASKED_LOGIT
from hyperformer.core.types import HeadWeights


def compute_token_types(input_ids: Tensor, separator: int) -> Tensor:
    """Compute BERT's token types [B, L]: 0 up to the first separator and 1 after it."""
    separators = (input_ids == separator).long()
    return ((separators.cumsum(1) - separators) > 0).long()


class ConstantLinear(nn.Module):
    """A linear layer as constants, with weight and bias multiplied by `scale`: x W + b."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Any, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", scale * layer.weight.detach().T.contiguous())  # [inputs, outputs]
        self.register_buffer("bias", scale * layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Compute x W + b."""
        return x @ self.weight + self.bias


class Norm(nn.Module):
    """A layer norm as constants."""

    gain: Tensor
    shift: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("gain", norm.weight.detach().clone())
        self.register_buffer("shift", norm.bias.detach().clone())
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Compute LN(x; gain, shift)."""
        return F.layer_norm(x, x.shape[-1:], self.gain, self.shift, self.eps)


class Embeddings(nn.Module):
    """The layer-normalized sum of token, position and token-type embeddings, projected to the hidden size.

    `words` is the table of token embeddings [V, e].
    """

    positions: Tensor
    types: Tensor

    def __init__(self, model: Any, separator: int | None) -> None:
        super().__init__()
        layer = model.embeddings
        self.separator = separator
        self.padding = getattr(layer, "padding_idx", None)  # RoBERTa's positions begin after this index
        types, positions = layer.token_type_embeddings.weight.detach(), layer.position_embeddings.weight.detach()
        self.register_buffer("words", layer.word_embeddings.weight.detach())
        self.register_buffer("positions", positions + types[0] if separator is None else positions.clone())
        if separator is not None:
            self.register_buffer("types", types.clone())
        self.norm = Norm(layer.LayerNorm)
        project = getattr(model, "embeddings_project", None)
        self.project = ConstantLinear(project) if project is not None else nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed token ids [B, L] into hidden states [B, L, d]."""
        embedded = F.embedding(input_ids, self.get_buffer("words"))  # [B, L, e]
        if self.separator is not None:
            embedded = embedded + F.embedding(compute_token_types(input_ids, self.separator), self.types)
        if self.padding is None:
            index = torch.arange(input_ids.shape[1], device=input_ids.device)
        else:
            index = attention_mask.cumsum(1) * attention_mask + self.padding
        return self.project(self.norm(embedded + F.embedding(index, self.positions)))


def gelu(x: Tensor) -> Tensor:
    """Compute the exact GELU by operations that onnxruntime fuses."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


class Block(nn.Module):
    """Self-attention, then feed-forward; each is followed by its adapter, the residual sum and a layer norm."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention, output = layer.attention.self, layer.attention.output
        self.heads, self.size = attention.num_attention_heads, attention.attention_head_size
        self.q = ConstantLinear(attention.query, self.size**-0.5)
        self.k, self.v = ConstantLinear(attention.key), ConstantLinear(attention.value)
        self.o = ConstantLinear(output.dense)
        self.attention_adapter, self.attention_norm = Adapter(output.dropout), Norm(output.LayerNorm)
        output = layer.output
        self.wi, self.wo = ConstantLinear(layer.intermediate.dense), ConstantLinear(output.dense)
        self.adapter, self.norm = Adapter(output.dropout), Norm(output.LayerNorm)
        activation = layer.intermediate.intermediate_act_fn
        self.activation = gelu if isinstance(activation, GELUActivation) else activation

    def forward(self, hidden: Tensor, padding: Tensor) -> Tensor:
        """Compute the block's hidden states [B, L, d]; `padding` [B, 1, 1, L] is added to the attention logits."""
        q, k, v = (
            linear(hidden).unflatten(-1, (self.heads, self.size)).transpose(1, 2)  # [B, H, L, dk]
            for linear in (self.q, self.k, self.v)
        )
        attention = (q @ k.transpose(2, 3) + padding).softmax(-1)  # [B, H, L, L]
        attended = self.o((attention @ v).transpose(1, 2).flatten(2))
        hidden = self.attention_norm(hidden + self.attention_adapter(attended))
        return self.norm(hidden + self.adapter(self.wo(self.activation(self.wi(hidden)))))


class EncoderGraph(nn.Module):
    """An exportable encoder: `input_ids`, `attention_mask` [B, L] → `scores`, `probabilities` [B, A].

    In a regression task, it also returns the expected `value` [B].

    Args:
        model: an encoder whose adapters are constants.
        head: the head of the task's answers: weight [A, d], bias [A].
        numbers: numeric value of each answer; None if the task is not a regression task.
        separator: id of the token after the first text; None if both texts of a pair have the same token type.
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
        self.is_regression = numbers is not None
        if numbers is not None:
            self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.float32).unsqueeze(1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Compute `scores` and `probabilities` [B, A], and in a regression task `value` [B]."""
        mask = attention_mask.float()
        padding = (1.0 - mask)[:, None, None, :] * MASKED_LOGIT
        hidden = self.embeddings(input_ids, attention_mask)
        for block in self.blocks:
            hidden = block(hidden, padding)
        pooled = (mask.unsqueeze(1) @ hidden).squeeze(1) / mask.sum(1, keepdim=True)  # [B, d]
        scores = (pooled @ self.head + self.head_bias).log_softmax(-1)
        return collect_outputs(scores, self.numbers if self.is_regression else None)
