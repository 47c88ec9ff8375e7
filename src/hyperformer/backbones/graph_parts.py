"""Modules that all exportable graphs share: every weight is a buffer in the layout of the ONNX graph."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from hyperformer.backbones.adapters import ADAPTER_NORM_EPS, ConstantAdapter


class Adapter(nn.Module):
    """The adapter of a sublayer as constants; the identity if the sublayer has no adapter."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor
    gain: Tensor
    shift: Tensor

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.is_identity = not isinstance(dropout, ConstantAdapter)
        if isinstance(dropout, ConstantAdapter):
            self.activation = dropout.activation
            for name, value in dropout.named_buffers(recurse=False):
                self.register_buffer(name, value.T.contiguous() if value.dim() == 2 else value.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Compute x + LN(act(x Dᵀ + b_D) Uᵀ + b_U; gain, shift), [B, L, d]."""
        if self.is_identity:
            return x
        z = self.activation(x @ self.down + self.down_bias) @ self.up + self.up_bias  # [B, L, d]
        return x + F.layer_norm(z, x.shape[-1:], self.gain, self.shift, ADAPTER_NORM_EPS)


def collect_outputs(scores: Tensor, numbers: Tensor | None) -> tuple[Tensor, ...]:
    """Return a graph's outputs: `scores`, `probabilities` [B, A]; with `numbers` [A, 1], also `value` [B]."""
    probabilities = scores.softmax(-1)
    return (scores, probabilities) if numbers is None else (scores, probabilities, (probabilities @ numbers).squeeze(1))
