"""The blocks of a T5 on packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hyperformer.backbones.activations import get_activation
from hyperformer.backbones.heads import MASKED_LOGIT
from hyperformer.backbones.layers import (
    LinearLayers,
    attend,
    finish,
    join_heads,
    mask_bias,
    rms_norm,
    self_attend,
)
from hyperformer.backbones.packing import Packing


class EncodedSource:
    """The encoder's last hidden states, as the decoder attends to them.

    Args:
        states: the hidden states, [S, d].
        packing: their places.
        targets: the places of the decoder's tokens.
        size: size dk of an attention head.

    Attributes:
        groups: the hidden states of each group, [b, L, d], if `attend_to_source` absorbs the key and value weights;
            otherwise None.
        biases: for each group, the bias that masks padding, [b, 1, L]; None if there is no padding.
    """

    def __init__(self, states: Tensor, packing: Packing, targets: Packing, size: int) -> None:
        self.states, self.packing = states, packing
        self.groups = packing.pad(states) if is_absorbed(packing, targets, size) else None
        self.biases = [mask_bias(group.mask, states.dtype) for group in packing.groups]


def is_absorbed(source: Packing, targets: Packing, size: int) -> bool:
    """Return whether attention to the source has fewer products if it absorbs the key and value weights.

    Args:
        source: the places of the source's tokens.
        targets: the places of the decoder's tokens.
        size: size dk of an attention head.
    """
    length = len(source) / len(source.lengths)  # mean number of tokens of a source
    return len(targets) * (length + size) < len(source) * size


def compute_block(
    linear: LinearLayers,
    block: Any,
    hidden: Tensor,
    packing: Packing,
    biases: Sequence[Tensor],
    source: EncodedSource | None = None,
) -> Tensor:
    """Compute a block of the encoder or the decoder, [N, d].

    Args:
        linear: computes the linear layers.
        block: the block.
        hidden: hidden states, [N, d].
        packing: their places.
        biases: for each group, the position bias and the masks of self-attention, [b · H, L, L].
        source: what the decoder attends to; None for the encoder.
    """
    layer = block.layer[0]
    attention = layer.SelfAttention
    qkv = linear(rms_norm(hidden, layer.layer_norm), attention.q, attention.k, attention.v)
    attended = self_attend(qkv, packing, attention.n_heads, biases, 1.0, get_dropout(attention))
    hidden = hidden + finish(layer.dropout, linear(attended, attention.o), packing)
    if source is not None:
        layer = block.layer[1]
        attention = layer.EncDecAttention
        attended = attend_to_source(linear, attention, rms_norm(hidden, layer.layer_norm), packing, source)
        hidden = hidden + layer.dropout(linear(attended, attention.o))
    layer = block.layer[-1]
    fed = feed_forward(linear, layer.DenseReluDense, rms_norm(hidden, layer.layer_norm))
    return hidden + finish(layer.dropout, fed, packing)


def get_dropout(attention: Any) -> float:
    """Return the dropout probability of an attention's weights; 0 in evaluation mode."""
    return attention.dropout if attention.training else 0.0


def feed_forward(linear: LinearLayers, dense: Any, hidden: Tensor) -> Tensor:
    """Compute act(x wi) wo or, with a gate, (act(x wi_0) · (x wi_1)) wo, [N, d]."""
    activation = get_activation(dense.act)
    if hasattr(dense, "wi_0"):
        gate, value = linear(hidden, dense.wi_0, dense.wi_1).chunk(2, dim=-1)
        inner = activation(gate) * value
    else:
        inner = activation(linear(hidden, dense.wi))
    return linear(dense.dropout(inner), dense.wo)


def attend_to_source(
    linear: LinearLayers, attention: Any, hidden: Tensor, packing: Packing, source: EncodedSource
) -> Tensor:
    """Compute the attention of the decoder's tokens to the source, [N, H · dk].

    With few target tokens, the key and value weights are absorbed: keys and values are not computed for every token of
    the source. Instead, the queries are multiplied by the key weights, and the value weights are applied to the
    averages of the source's hidden states, weighted by attention. The result is the same.

    Args:
        linear: computes the linear layers.
        attention: the decoder's cross-attention.
        hidden: hidden states that attend, [N, d].
        packing: their places.
        source: what they attend to.
    """
    heads, size, p = attention.n_heads, attention.key_value_proj_dim, get_dropout(attention)
    q = linear(hidden, attention.q).unflatten(1, (heads, size))  # [N, H, dk]
    attended = []
    if source.groups is not None:
        k, v = (
            linear.convert(q.dtype, layer)[0].unflatten(0, (heads, size))  # [H, dk, d]
            for layer in (attention.k, attention.v)
        )
        q = torch.bmm(q.transpose(0, 1), k).transpose(0, 1)  # [N, H, d]
        for part, states, bias in zip(packing.pad(q), source.groups, source.biases, strict=True):
            averages = attend(part.flatten(1, 2), states, states, bias, 1.0, p)  # [b, T · H, d]
            attended.append(averages.unflatten(1, (-1, heads)))
        averages = packing.unpad(attended).transpose(0, 1)  # [H, N, d]
        return torch.bmm(averages, v.transpose(1, 2)).transpose(0, 1).flatten(1)
    kv = linear(source.states, attention.k, attention.v).unflatten(1, (2, heads, size))  # [S, 2, H, dk]
    for part, states, row_bias in zip(packing.pad(q), source.packing.pad(kv), source.biases, strict=True):
        k, v = states.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)  # each [b · H, L, dk]
        bias = None if row_bias is None else row_bias.repeat_interleave(heads, 0)  # [b · H, 1, L]
        attended.append(join_heads(attend(part.transpose(1, 2).flatten(0, 1), k, v, bias, 1.0, p), heads))
    return packing.unpad(attended)


def compute_position_biases(attention: Any, packing: Packing, dtype: torch.dtype, causal: bool) -> list[Tensor]:
    """Return for each group the position bias of an attention plus the masks, [b · H, L, L].

    Args:
        attention: an attention with position bias.
        packing: the places of the tokens.
        dtype: the dtype of the biases.
        causal: whether a token attends only to itself and the tokens before it.
    """
    longest = max(group.length for group in packing.groups)
    table = attention.compute_bias(longest, longest, device=packing.device)[0].to(dtype)  # [H, L, L]
    if causal:
        table = table + torch.full_like(table[0], MASKED_LOGIT).triu(1)
    biases = []
    for group in packing.groups:
        bias = table[:, : group.length, : group.length].expand(group.rows, -1, -1, -1)  # [b, H, L, L]
        mask = None if causal else mask_bias(group.mask, dtype)  # causal tokens do not see the padding after them
        biases.append((bias if mask is None else bias + mask.unsqueeze(1)).flatten(0, 1))
    return biases
