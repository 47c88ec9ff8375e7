"""Adapters inside a backbone: the modules at the insertion points, and their computation.

The `dropout` of a sublayer is replaced by a module that applies the adapter and then the dropout. A block of T5 then
computes h + dropout(A(sublayer(norm(h)))), without a fork of the backbone's code (HyperFormer, section 3.1).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperformer.backbones.activations import get_activation
from hyperformer.backbones.packing import Chunks
from hyperformer.core.types import AdapterWeights, HeadWeights

ADAPTER_NORM_EPS = 1e-5


class AdapterSite(nn.Module):
    """The adapter of one site, followed by the sublayer's dropout.

    The module has no weights: it uses the weights that `ActiveWeights` has for the current batch.
    """

    def __init__(self, index: int, active: ActiveWeights, dropout: nn.Module) -> None:
        super().__init__()
        self.index, self.dropout = index, dropout
        self._active = (active,)  # in a tuple, so that it is not registered as a submodule

    def forward(self, hidden: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Apply the adapter and the dropout to the sublayer's output; see `ActiveWeights.adapt` for the arguments."""
        return self.dropout(self._active[0].adapt(self.index, hidden, chunks))


class _Current(threading.local):
    """The weights in use, separately for each thread."""

    sites: list[tuple[Tensor, ...]] | None = None
    head: HeadWeights | None = None
    rows: Tensor | None = None


class ActiveWeights:
    """The weights of adapters and head in the current forward pass: none, those of one task, or those of each row.

    The method `use` returns a context: the forward passes inside it have these weights, the passes outside it have
    none. Contexts may be nested. Each thread has its own context, so that several threads can use one model.

        with backbone.active_weights.use(method.weights(task_ids), rows):
            losses = backbone.loss(batch, 0.0)

    Attributes:
        activation: the activation function of the adapters.
        constant_head: the head of a baked task (n = 1), which forward passes outside of contexts use.
    """

    def __init__(self) -> None:
        self.activation: nn.Module = nn.Identity()
        self.constant_head: HeadWeights | None = None
        self._current = _Current()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: all but the contexts."""
        return {name: value for name, value in vars(self).items() if name != "_current"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _current=_Current())

    @property
    def head(self) -> HeadWeights | None:
        """The head of one task (n = 1) or of each row (n = B); None if there is no head."""
        return self.constant_head if self._current.head is None else self._current.head

    @property
    def rows(self) -> Tensor | None:
        """The index of each row's task in the current weights, [B]; None if all rows are of one task."""
        return self._current.rows

    @contextmanager
    def use(
        self, weights: AdapterWeights | None, rows: Tensor | None = None, head: HeadWeights | None = None
    ) -> Iterator[None]:
        """Use `weights` and `head` in the forward passes inside the context.

        Args:
            weights: adapters of n tasks; None if there are no adapters.
            rows: index of each batch row's task in `weights` and `head`, [B]; None if n = 1.
            head: heads of the same tasks; None if there are no heads.
        """
        # unbind once, for a gradient of one stack; the gradient of a slice for each site would be as large as all sites
        stacks = [] if weights is None else [tensor.unbind(1) for tensor in vars(weights).values()]
        sites = list(zip(*stacks, strict=True)) if stacks else None  # of each site: tensors [n, ...]
        if head is not None and rows is not None:
            head = HeadWeights(head.weight.index_select(0, rows), head.bias.index_select(0, rows))
        with self._set(sites, head, rows):
            yield

    @contextmanager
    def _set(
        self, sites: list[tuple[Tensor, ...]] | None, head: HeadWeights | None, rows: Tensor | None
    ) -> Iterator[None]:
        current = self._current
        before = current.sites, current.head, current.rows
        current.sites, current.head, current.rows = sites, head, rows
        try:
            yield
        finally:
            current.sites, current.head, current.rows = before

    def capture(self) -> Callable[[], AbstractContextManager[None]]:
        """Return a function that creates a context with the current weights, for recomputation in the backward pass."""
        return partial(self._set, self._current.sites, self._current.head, self._current.rows)

    def adapt(self, index: int, x: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Apply the adapters of site `index` to hidden states; return them unchanged if no adapters are active.

        Args:
            index: index of the site.
            x: hidden states, [..., d]; of several tasks only as [N, d].
            chunks: the places of hidden states of several tasks; None if all are of one task.
        """
        sites = self._current.sites
        if sites is None:
            return x
        activation = get_activation(self.activation)
        if chunks is None:
            down, down_bias, up, up_bias, gain, shift = (tensor.squeeze(0) for tensor in sites[index])
            return adapter(x, down, down_bias, up, up_bias, gain, shift, activation)
        down, down_bias, up, up_bias, gain, shift = (chunks.select(tensor.to(x.dtype)) for tensor in sites[index])
        z = chunks.pad(x)  # [c, T, d]
        z = activation(torch.baddbmm(down_bias.unsqueeze(1), z, down.transpose(1, 2)))  # [c, T, r]
        z = torch.baddbmm(up_bias.unsqueeze(1), z, up.transpose(1, 2))  # [c, T, d]
        z = F.layer_norm(z, x.shape[-1:], eps=ADAPTER_NORM_EPS)
        return x + chunks.unpad(torch.addcmul(shift.unsqueeze(1), z, gain.unsqueeze(1)))


def adapter(
    x: Tensor,
    down: Tensor,
    down_bias: Tensor,
    up: Tensor,
    up_bias: Tensor,
    gain: Tensor,
    shift: Tensor,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """Compute x + LN(U act(D x + b_D) + b_U; gain, shift) (HyperFormer, equations 1 and 2).

    Args:
        x: hidden states [..., d], whose dtype is that of the products.
        down: D [r, d].
        down_bias: b_D [r].
        up: U [d, r].
        up_bias: b_U [d].
        gain: scale of the layer norm [d].
        shift: bias of the layer norm [d].
        activation: the activation function.

    Returns:
        [..., d].
    """
    down, down_bias, up, up_bias, gain, shift = (
        weight.to(x.dtype) for weight in (down, down_bias, up, up_bias, gain, shift)
    )
    z = activation(F.linear(x, down, down_bias))  # [..., r]
    return x + F.layer_norm(F.linear(z, up, up_bias), gain.shape, gain, shift, ADAPTER_NORM_EPS)  # [..., d]


class ConstantAdapter(nn.Module):
    """One task's adapter at one site, with constant weights, followed by the sublayer's dropout."""

    def __init__(self, weights: AdapterWeights, index: int, activation: nn.Module, dropout: nn.Module) -> None:
        super().__init__()
        for name, value in vars(weights).items():
            self.register_buffer(name, value[0, index].detach().clone())
        self.activation, self.dropout = activation, dropout

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the adapter and the dropout to the sublayer's output [..., d]."""
        return self.dropout(adapter(hidden, **dict(self.named_buffers(recurse=False)), activation=self.activation))
