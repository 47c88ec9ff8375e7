"""The layers of a transformer on packed tokens (see `packing`), computed from the weights of a backbone's modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from hyperformer.backbones.adapters import AdapterSite
from hyperformer.backbones.dropout import dropout
from hyperformer.backbones.heads import MASKED_LOGIT
from hyperformer.backbones.packing import Packing


def get_compute_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of activations: that of `torch.autocast` if it is enabled, otherwise float32."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


class LinearLayers:
    """Computes linear layers in the dtype of their input. Weights that are not trained are converted only once.

    The converted weights stay in memory. They are converted again after a change in place, but a change through `.data`
    is not noticed. Copies of an instance have no converted weights.
    """

    def __init__(self) -> None:
        self._converted: dict[Any, tuple[Any, list[Tensor], tuple[Tensor, Tensor | None]]] = {}

    def __deepcopy__(self, memo: Any) -> Self:
        return type(self)()

    def __call__(self, x: Tensor, *layers: Any) -> Tensor:
        """Return the outputs of layers that have the same input, side by side, [N, outputs].

        Weights of another dtype are joined, so that one matrix product computes all layers.
        """
        if x.dtype == layers[0].weight.dtype:
            outputs = [F.linear(x, layer.weight, layer.bias) for layer in layers]
            return torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
        return F.linear(x, *self.convert(x.dtype, *layers))

    def convert(self, dtype: torch.dtype, *layers: Any) -> tuple[Tensor, Tensor | None]:
        """Return the weights [outputs, inputs] and biases [outputs] of layers, joined and in a dtype."""
        tensors = [tensor for layer in layers for tensor in (layer.weight, layer.bias) if tensor is not None]
        if any(tensor.requires_grad for tensor in tensors):
            return _join(dtype, layers)
        key = (dtype, *map(id, tensors))
        version = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if key not in self._converted or self._converted[key][0] != version:
            with torch.inference_mode(False), torch.no_grad():  # a tensor of inference mode cannot be used in training
                self._converted[key] = version, tensors, _join(dtype, layers)
        return self._converted[key][2]


def _join(dtype: torch.dtype, layers: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    weights = [layer.weight.to(dtype) for layer in layers]
    biases = [layer.bias.to(dtype) for layer in layers if layer.bias is not None]
    return torch.cat(weights) if len(weights) > 1 else weights[0], torch.cat(biases) if biases else None


def finish(site: Any, hidden: Tensor, packing: Packing) -> Tensor:
    """Apply what follows a sublayer, before the residual sum: its adapter, if it has one, and its dropout."""
    finished: Tensor = site(hidden, packing.chunks) if isinstance(site, AdapterSite) else site(hidden)
    return finished


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, p: float) -> Tensor:
    """Compute attention, softmax(scale · q kᵀ + bias) v.

    Args:
        q: queries [n, T, e].
        k: keys [n, L, e].
        v: values [n, L, f].
        bias: added to the logits, broadcast to [n, T, L]; None: nothing is added.
        scale: factor of the logits.
        p: dropout probability of the weights; 0 in evaluation mode.

    Returns:
        [n, T, f].
    """
    if q.device.type != "cpu":
        return attend_fused(q, k, v, bias, scale, p)
    added = q.new_zeros(1, 1, 1) if bias is None else bias
    logits = torch.baddbmm(added, q, k.transpose(1, 2), beta=int(bias is not None), alpha=scale)
    return torch.bmm(dropout(logits.softmax(-1), p, training=True), v)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, p: float) -> Tensor:
    """Compute `attend` by the fused kernels of PyTorch, which are fast on a GPU, and slow on a CPU for short rows."""
    if bias is not None:
        bias = bias.expand(len(q), q.shape[1], k.shape[1]).unsqueeze(0)
    q, k, v = (x.unsqueeze(0) for x in (q, k, v))  # the kernels expect [B, H, T, e]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p, scale=scale).squeeze(0)


def self_attend(
    qkv: Tensor, packing: Packing, heads: int, biases: Sequence[Tensor | None], scale: float, p: float
) -> Tensor:
    """Compute the attention of each row's tokens to each other, [N, H · dk].

    Args:
        qkv: queries, keys and values side by side, [N, 3 · H · dk].
        packing: the places of the tokens.
        heads: number H of attention heads.
        biases: for each group, added to the logits, broadcast to [b · H, L, L].
        scale: factor of the logits.
        p: dropout probability of the weights; 0 in evaluation mode.
    """
    attended = []
    for part, bias in zip(packing.pad(qkv.unflatten(1, (3, heads, -1))), biases, strict=True):
        q, k, v = part.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)  # each [b · H, L, dk]
        attended.append(join_heads(attend(q, k, v, bias, scale, p), heads))
    return packing.unpad(attended)


def join_heads(x: Tensor, heads: int) -> Tensor:
    """Change the layout from [b · H, L, dk] to [b, L, H · dk]."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def mask_bias(mask: Tensor | None, dtype: torch.dtype, heads: int = 1) -> Tensor | None:
    """Return the bias that masks the padding of a group's keys, [b · H, 1, L]; None if there is no padding.

    Args:
        mask: whether a token is not padding, [b, L].
        dtype: the dtype of the bias.
        heads: number H of copies of each row's bias.
    """
    return None if mask is None else (~mask).to(dtype).mul_(MASKED_LOGIT).repeat_interleave(heads, 0).unsqueeze(1)


def layer_norm(x: Tensor, norm: Any) -> Tensor:
    """Compute a layer norm with statistics in float32, in the dtype of x, [N, d]."""
    if x.device.type == "cpu" or x.dtype == norm.weight.dtype:
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    # the kernels of a GPU do not take weights of another dtype
    return F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """x / √(mean(x²) + ε) · w, with statistics in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        normed, gradient = x.float() * inverse, gradients[0].float()
        weight_gradient = (gradient * normed).sum(0)
        gradient = gradient * weight
        projection = (gradient * normed).mean(-1, keepdim=True)
        return gradient.addcmul_(normed, projection, value=-1).mul_(inverse).to(x.dtype), weight_gradient, None


def rms_norm(x: Tensor, norm: Any) -> Tensor:
    """Compute T5's layer norm (Zhang and Sennrich 2019), x / √(mean(x²) + ε) · w, [N, d]."""
    normed: Tensor = _RMSNorm.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed
