"""The blocks of a BERT-like encoder on packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hyperformer.backbones.activations import get_activation
from hyperformer.backbones.layers import LinearLayers, finish, layer_norm, self_attend
from hyperformer.backbones.packing import Packing


def compute_block(
    linear: LinearLayers, block: Any, hidden: Tensor, packing: Packing, biases: Sequence[Tensor | None]
) -> Tensor:
    """Compute a block, self-attention and then feed-forward, [N, d].

    Args:
        linear: computes the linear
        block: the block.
        hidden: hidden states, [N, d].
        packing: their places.
        biases: for each group, the bias that masks padding, [b · H, 1, L]; None if there is no padding.
    """
    attention, output = block.attention.self, block.attention.output
    qkv = linear(hidden, attention.query, attention.key, attention.value)
    scale, p = attention.attention_head_size**-0.5, attention.dropout.p if attention.training else 0.0
    attended = self_attend(qkv, packing, attention.num_attention_heads, biases, scale, p)
    finished = finish(output.dropout, linear(attended, output.dense), packing)
    hidden = layer_norm(hidden + finished, output.LayerNorm)
    output, activation = block.output, get_activation(block.intermediate.intermediate_act_fn)
    fed = linear(activation(linear(hidden, block.intermediate.dense)), output.dense)
    return layer_norm(hidden + finish(output.dropout, fed, packing), output.LayerNorm)
