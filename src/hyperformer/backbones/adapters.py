"""Adapters inside a backbone: the places, and what computes there.

A place is a sublayer's `dropout`, replaced by adapter-then-dropout: h + dropout(A(sublayer(norm(h)))) without a fork of
the backbone (HyperFormer, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperformer.types import AdapterWeights, HeadWeights

ADAPTER_NORM_EPS = 1e-5


class AdapterSite(nn.Module):
    """A sublayer's dropout, with the adapter of this site before it.

    The weights are not this module's: `AdapterPlaces` hands it those of the batch at hand, for each row its task's.
    """

    def __init__(self, index: int, places: AdapterPlaces, dropout: nn.Module) -> None:
        super().__init__()
        self.index, self.dropout = index, dropout
        self._places = (places,)  # in a tuple, so that it is not registered as a submodule

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self._places[0].adapt(self.index, hidden))


class AdapterPlaces:
    """The adapter weights that the sites use now: none, one task's, or each row's own.

    Attributes:
        head: that answers are read off by, of one task (n = 1) or each row's own (n = B); None where there is none.
    """

    def __init__(self) -> None:
        self.activation: nn.Module = nn.Identity()
        self.head: HeadWeights | None = None
        self._sites: list[tuple[Tensor, ...]] | None = None

    @contextmanager
    def using(
        self, weights: AdapterWeights | None, rows: Tensor | None = None, head: HeadWeights | None = None
    ) -> Iterator[None]:
        """Places `weights` and `head` for the forward passes inside.

        Args:
            weights, head: of n tasks; n = 1 where `rows` is None.
            rows: each batch row's entry in them, [B].
        """
        parts = [] if weights is None else list(vars(weights).values())
        # unbound once: its gradient is one stack, where a slice a site would each fill a whole tensor
        if rows is None:
            found = [part.squeeze(0).unbind(0) for part in parts]  # of each site: [...]
        else:
            found = [part.index_select(0, rows).unbind(1) for part in parts]  # of each site: [B, ...]
        sites = list(zip(*found, strict=True)) if parts else None
        if head is not None and rows is not None:
            head = HeadWeights(head.weight.index_select(0, rows), head.bias.index_select(0, rows))
        with self._put(sites, head):
            yield

    @contextmanager
    def _put(self, sites: list[tuple[Tensor, ...]] | None, head: HeadWeights | None) -> Iterator[None]:
        before = self._sites, self.head
        self._sites, self.head = sites, head
        try:
            yield
        finally:
            self._sites, self.head = before

    def placed(self) -> Callable[[], AbstractContextManager[None]]:
        """What places the weights of now once more, for what is computed anew in the backward pass."""
        return partial(self._put, self._sites, self.head)

    def adapt(self, index: int, x: Tensor) -> Tensor:
        """The adapters of one site on x [B, L, d]."""
        if self._sites is None:
            return x
        down, down_bias, up, up_bias, gain, shift = self._sites[index]
        if down.dim() == 2:
            return adapter(x, down, down_bias, up, up_bias, gain, shift, activation=self.activation)
        z = self.activation(torch.baddbmm(down_bias.unsqueeze(1), x, down.transpose(1, 2)))  # [B, L, r]
        z = torch.baddbmm(up_bias.unsqueeze(1), z, up.transpose(1, 2))  # [B, L, d]
        z = F.layer_norm(z, x.shape[-1:], eps=ADAPTER_NORM_EPS)
        return x + torch.addcmul(shift.unsqueeze(1), z, gain.unsqueeze(1))


def adapter(
    x: Tensor,
    down: Tensor,
    down_bias: Tensor,
    up: Tensor,
    up_bias: Tensor,
    gain: Tensor,
    shift: Tensor,
    activation: nn.Module,
) -> Tensor:
    """x + LN(U act(D x + b_D) + b_U; gain, shift) (HyperFormer, equations 1 and 2).

    Args:
        x: [B, L, d].
        down: D [r, d]; down_bias: [r]; up: U [d, r]; up_bias, gain, shift: [d].
    """
    z = activation(F.linear(x, down, down_bias))  # [B, L, r]
    return x + F.layer_norm(F.linear(z, up, up_bias), gain.shape, gain, shift, ADAPTER_NORM_EPS)  # [B, L, d]


class ConstantAdapter(nn.Module):
    """One task's adapter at one site, as constants, then the sublayer's dropout."""

    def __init__(self, weights: AdapterWeights, index: int, activation: nn.Module, dropout: nn.Module) -> None:
        super().__init__()
        for name, value in vars(weights).items():
            self.register_buffer(name, value[0, index].detach().clone())
        self.activation, self.dropout = activation, dropout

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(adapter(hidden, **dict(self.named_buffers(recurse=False)), activation=self.activation))
