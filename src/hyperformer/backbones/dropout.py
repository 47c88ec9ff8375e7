"""Dropout whose random numbers are cheap on a processor, where `bernoulli_` takes a tenth of a training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # of the 16 random bits that an element takes


class Dropout(nn.Dropout):
    """`nn.Dropout` whose probability is rounded to 1/65536; on a processor 16 random bits an element decide."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        dropped = round(self.p * LEVELS)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # four elements' bits
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        kept = bits.to(x.dtype).ge_(dropped - LEVELS // 2)
        return x * kept.mul_(LEVELS / max(LEVELS - dropped, 1))


def hasten(model: nn.Module) -> None:
    """Puts `Dropout` in place of every plain dropout of a model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
