"""What the modules that become graphs have in common: every weight a buffer, laid out as a graph uses it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from hyperformer.backbones.adapters import ADAPTER_NORM_EPS, ConstantAdapter


class Adapter(nn.Module):
    """A sublayer's end: its adapter's constants, or nothing where it has none."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor
    gain: Tensor
    shift: Tensor

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.empty = not isinstance(end, ConstantAdapter)
        if isinstance(end, ConstantAdapter):
            self.activation = end.activation
            for name, value in end.named_buffers(recurse=False):
                self.register_buffer(name, value.T.contiguous() if value.dim() == 2 else value.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.empty:
            return x
        z = self.activation(x @ self.down + self.down_bias) @ self.up + self.up_bias  # [B, L, d]
        return x + F.layer_norm(z, x.shape[-1:], self.gain, self.shift, ADAPTER_NORM_EPS)


def outputs(scores: Tensor, numbers: Tensor | None) -> tuple[Tensor, ...]:
    """What a classifier graph gives: `scores`, `probabilities` [B, A]; `value` [B] of the answers' `numbers` [A, 1]."""
    probabilities = scores.softmax(-1)
    return (scores, probabilities) if numbers is None else (scores, probabilities, (probabilities @ numbers).squeeze(1))
