"""Dropout that is faster on a CPU, because it draws only 16 random bits per element."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 16
"""Number of values that 16 random bits can have."""


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Drop elements of x with probability p and scale the others; return x itself if `training` is false or p is 0.

    On a CPU, p is rounded to a multiple of 1/65536.
    """
    if not training or not p:
        return x
    dropped = round(p * LEVELS)
    if x.device.type != "cpu" or dropped == LEVELS:
        return F.dropout(x, p)
    drawn = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # bits of four elements
    bits = drawn.view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(bits, dropped - LEVELS // 2, out=torch.empty_like(x, requires_grad=False))
    return x * kept.mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """`nn.Dropout` that computes `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x and scale the others; return x itself in evaluation mode."""
        return dropout(x, self.p, self.training)


def replace_dropout(model: nn.Module) -> None:
    """Replace every plain `nn.Dropout` of a model by `Dropout`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
