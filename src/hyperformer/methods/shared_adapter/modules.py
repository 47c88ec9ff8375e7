"""Weights that all tasks share at each site: an adapter's, and a layer norm's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyperformer.methods.adapters.settings import AdapterSettings
from hyperformer.methods.adapters.sites import compute_bottleneck, get_initial_gain
from hyperformer.methods.base import INITIAL_STD


class SharedAdapter(nn.Module):
    """The weights of an adapter at each of s sites: down [s, r, d], down_bias [s, r], up [s, d, r], up_bias [s, d]."""

    def __init__(self, sites: int, width: int, settings: AdapterSettings) -> None:
        super().__init__()
        r = compute_bottleneck(settings, width)
        self.down = nn.Parameter(torch.empty(sites, r, width).normal_(std=INITIAL_STD))
        self.down_bias = nn.Parameter(torch.zeros(sites, r))
        self.up = nn.Parameter(torch.empty(sites, width, r).normal_(std=INITIAL_STD))
        self.up_bias = nn.Parameter(torch.zeros(sites, width))


class SharedLayerNorms(nn.Module):
    """Trained gains and shifts [s, d] of ordinary layer norms, one per site, which all tasks share."""

    def __init__(self, sites: int, width: int, settings: AdapterSettings) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((sites, width), get_initial_gain(settings)))
        self.shift = nn.Parameter(torch.zeros(sites, width))

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return gains and shifts [n, s, d], the same for each of the n entries of `source`."""
        return self.gain.expand(len(source), -1, -1), self.shift.expand(len(source), -1, -1)
