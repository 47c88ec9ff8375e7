"""Run a backbone on sources, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperformer import backbones
from hyperformer.core.types import Source
from hyperformer.settings import BackboneSettings

T = TypeVar("T")


class _Movable(Protocol):
    def to(self, device: str, /) -> Self: ...


M = TypeVar("M", bound=_Movable)


def move_to_gpu(model: M) -> M:
    """Move a model or models to the GPU, if there is a GPU."""
    return model.to("cuda") if torch.cuda.is_available() else model


def make_embedder(backbone: BackboneSettings, batch_size: int) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return a function that computes the frozen backbone's mean hidden state of each text, [texts, d]."""
    frozen = move_to_gpu(backbones.load(backbone))

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        def run(input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
            return list(frozen.embed(input_ids, attention_mask))

        return torch.stack(run_batches(frozen, texts, backbone, batch_size, run)).cpu().numpy()

    return embed


def run_batches(
    backbone: backbones.Backbone,
    sources: Sequence[Source],
    settings: BackboneSettings,
    batch_size: int,
    run: Callable[[Tensor, Tensor], list[T]],
) -> list[T]:
    """Return the results of `run` for each source, from batches of similar length, in the order of the sources."""
    encoded = backbone.encode(sources, settings)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
    device = next(backbone.parameters()).device
    results: dict[int, T] = {}
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = backbone.collate([encoded[i] for i in indices])
        batch_results = run(*(batch[name].to(device) for name in ("input_ids", "attention_mask")))
        results.update(zip(indices, batch_results, strict=True))
    return [results[i] for i in range(len(encoded))]
