"""Dropout that is faster on a CPU, because it draws only 16 random bits per element."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16
"""Number of values that 16 random bits can have."""


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws 16 random bits per element of a float32 tensor on a CPU; otherwise unchanged.

    For such a tensor, the dropout probability is rounded to a multiple of 1/65536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x and scale the others; return x itself in evaluation mode."""
        if not self.training or not self.p or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        dropped = round(self.p * LEVELS)
        drawn = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # bits of four elements
        bits = drawn.view(torch.int16)[: x.numel()].view(x.shape)
        kept = bits.to(x.dtype).ge_(dropped - LEVELS // 2)
        return x * kept.mul_(LEVELS / max(LEVELS - dropped, 1))


def replace_dropout(model: nn.Module) -> None:
    """Replace every plain `nn.Dropout` of a model by `Dropout`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
