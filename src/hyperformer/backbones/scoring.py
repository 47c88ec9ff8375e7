"""Scores of all answers of a task, from one pass of the decoder over the nodes of the answers' trie.

The nodes are the decoder's positions. A node attends only to itself and its ancestors. Evaluation in PyTorch and the
exported graph (`t5_graph`) compute the same sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hyperformer.backbones.heads import MASKED_LOGIT
from hyperformer.backbones.trie import Trie


class TriePlan:
    """A trie of N nodes, E edges and A answers as tensors, with the device and dtype of `like`.

    Attributes:
        edge_nodes: the node that each edge starts from, [E].
        edge_tokens: the token of each edge, [E].
        paths: 1 where an edge is on the path of an answer, [E, A].
        edge_mask: 1 where an edge starts from a node, [N, E].
        edge_bias: 0 where an edge starts from a node, and `MASKED_LOGIT` elsewhere, [N, E].
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
        self.edge_mask = (torch.arange(nodes, device=device).unsqueeze(1) == self.edge_nodes).to(like.dtype)
        self.edge_bias = (1.0 - self.edge_mask) * MASKED_LOGIT

    def tokens(self, start: int) -> Tensor:
        """Return the decoder's input token at each node, [N]: `start` at the root."""
        ids = [start if token is None else token for token in self.trie.tokens]
        return torch.tensor(ids, device=self.device)

    def bias(self, attention: Any) -> Tensor:
        """Return a self-attention's position bias between nodes, by their depths, [1, H, N, N].

        It is `MASKED_LOGIT` except between a node and its ancestors or itself.
        """
        depths = self.trie.depths
        table = attention.compute_bias(max(depths) + 1, max(depths) + 1)[0]  # [H, D, D]
        bias = table[:, depths][:, :, depths].clone()
        for node in range(len(depths)):
            hidden = sorted(set(range(len(depths))) - set(self.trie.ancestors(node)))
            bias[:, node, hidden] = MASKED_LOGIT
        return bias.unsqueeze(0)

    def scores(self, logits: Tensor, totals: Tensor | None) -> Tensor:
        """Compute the log-probability of each answer, [B, A].

        Args:
            logits: logits of the edges' tokens at every node, [B, N, E].
            totals: logsumexp of the logits of the vocabulary at every node, [B, N, 1]; None normalizes over the edges
                that start from the node.
        """
        steps = (logits + self.edge_bias).log_softmax(-1) if totals is None else logits - totals
        return (steps * self.edge_mask).sum(1) @ self.paths


def attend_to_states(attention: Any, queries: Tensor, states: Tensor, bias: Tensor) -> Tensor:
    """Apply T5's unscaled attention, [B, N, d].

    Args:
        attention: the attention module.
        queries: hidden states that attend, [b, N, d] with b = 1 or B.
        states: hidden states that are attended to, [B, L, d].
        bias: added to the attention logits, broadcast to [B, H, N, L].
    """
    heads, size = attention.n_heads, attention.key_value_proj_dim

    def split(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], heads, size).transpose(1, 2)  # [B, H, L, dk]

    q, k, v = split(attention.q(queries)), split(attention.k(states)), split(attention.v(states))
    weights = (q @ k.transpose(2, 3) + bias).softmax(-1)  # [B, H, N, L]
    return attention.o((weights @ v).transpose(1, 2).flatten(2))
