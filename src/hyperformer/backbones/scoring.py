"""Scoring all answers of a task in one decoder row: the nodes of their trie attend along their own branches.

The same sums in torch, where a model is evaluated, and in the graph that is exported (`t5_graph`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hyperformer.backbones.heads import NEVER
from hyperformer.backbones.trie import Trie


class TriePlan:
    """A trie as tensors of the device and type of `like`: N nodes, E edges, A answers.

    Attributes:
        edge_nodes, edge_tokens: [E].
        paths: 1 where an edge is on an answer's way, [E, A].
        own: 1 where an edge leaves a node, [N, E]; apart: 0 there and `NEVER` elsewhere.
    """

    def __init__(self, trie: Trie, like: Tensor) -> None:
        device = like.device
        self.trie, self.device = trie, device
        nodes, edges = len(trie.tokens), len(trie.edges)
        self.edge_nodes = torch.tensor([node for node, _ in trie.edges], device=device)
        self.edge_tokens = torch.tensor([token for _, token in trie.edges], device=device)
        self.paths = torch.zeros(edges, len(trie.paths), device=device, dtype=like.dtype)
        for answer, path in enumerate(trie.paths):
            self.paths[list(path), answer] = 1.0
        self.own = (torch.arange(nodes, device=device).unsqueeze(1) == self.edge_nodes).to(like.dtype)
        self.apart = (1.0 - self.own) * NEVER

    def tokens(self, start: int) -> Tensor:
        """The decoder's input at each node, [N]: `start` at the root."""
        ids = [start if token is None else token for token in self.trie.tokens]
        return torch.tensor(ids, device=self.device)

    def bias(self, attention: Any) -> Tensor:
        """A self-attention's position bias between nodes by their depths, and `NEVER` beside the way, [1, H, N, N]."""
        depths = self.trie.depths
        table = attention.compute_bias(max(depths) + 1, max(depths) + 1)[0]  # [H, D, D]
        found = table[:, depths][:, :, depths].clone()
        for node in range(len(depths)):
            hidden = sorted(set(range(len(depths))) - set(self.trie.seen(node)))
            found[:, node, hidden] = NEVER
        return found.unsqueeze(0)

    def scores(self, logits: Tensor, totals: Tensor | None) -> Tensor:
        """Each answer's log-probability, [B, A].

        Args:
            logits: of the edges' tokens after every node, [B, N, E].
            totals: the log of the sum over all that may follow a node, [B, N, 1]; None where those are its edges.
        """
        steps = (logits + self.apart).log_softmax(-1) if totals is None else logits - totals
        return (steps * self.own).sum(1) @ self.paths


def attend(attention: Any, queries: Tensor, states: Tensor, bias: Tensor) -> Tensor:
    """T5's attention, unscaled, of `queries` [b, N, d] to `states` [B, L, d], b = 1 or B; `bias` fits [B, H, N, L]."""
    heads, size = attention.n_heads, attention.key_value_proj_dim

    def split(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], heads, size).transpose(1, 2)  # [B, H, L, dk]

    q, k, v = split(attention.q(queries)), split(attention.k(states)), split(attention.v(states))
    shares = (q @ k.transpose(2, 3) + bias).softmax(-1)  # [B, H, N, L]
    return attention.o((shares @ v).transpose(1, 2).flatten(2))
