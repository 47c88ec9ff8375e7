"""A T5 and a task's answers as one module to trace: every weight is a buffer in the layout of the ONNX graph.

Everything that does not depend on the input is precomputed: the position biases between answer tokens, and the decoder
up to its first cross-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperformer.backbones.graph_parts import Adapter, collect_outputs
from hyperformer.backbones.heads import MASKED_LOGIT
from hyperformer.backbones.scoring import TriePlan, attend_to_states
from hyperformer.backbones.trie import Trie
from hyperformer.core.types import Scoring

ABSORPTION_FACTOR = 2
"""`CrossAttention` absorbs key and value weights if this factor times the number of nodes is at most the head size."""


class Norm(nn.Module):
    """T5's layer norm, by operations that onnxruntime fuses: x / √(mean(x²) + ε) · w."""

    weight: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("weight", norm.weight.detach().clone())
        self.eps = norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Compute x / √(mean(x²) + ε) · w."""
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class FeedForward(nn.Module):
    """Norm, feed-forward, adapter and residual: x + adapter(act(LN(x) wi) wo).

    With a gate, it computes x + adapter((act(g) · v) wo), where g and v are the halves of LN(x) wi.
    """

    wi: Tensor
    wo: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.adapter = Norm(layer.layer_norm), Adapter(layer.dropout)
        dense = layer.DenseReluDense
        self.activation = dense.act
        self.gated = hasattr(dense, "wi_0")
        weights = [dense.wi_0.weight, dense.wi_1.weight] if self.gated else [dense.wi.weight]
        self.register_buffer("wi", torch.cat(weights).detach().T.contiguous())  # [d, f] or [d, 2f]
        self.register_buffer("wo", dense.wo.weight.detach().T.contiguous())  # [f, d]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the hidden states after the layer, [B, L, d]."""
        inner = self.norm(hidden) @ self.wi
        if self.gated:
            gate, value = inner.chunk(2, dim=-1)
            inner = self.activation(gate) * value
        else:
            inner = self.activation(inner)
        return hidden + self.adapter(inner @ self.wo)


class SelfAttention(nn.Module):
    """Norm, self-attention, adapter and residual; one matrix product computes queries, keys and values."""

    qkv: Tensor
    o: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.adapter = Norm(layer.layer_norm), Adapter(layer.dropout)
        attention = layer.SelfAttention
        self.heads, self.size = attention.n_heads, attention.key_value_proj_dim
        weights = [attention.q.weight, attention.k.weight, attention.v.weight]
        self.register_buffer("qkv", torch.cat(weights).detach().T.contiguous())  # [d, 3 H dk]
        self.register_buffer("o", attention.o.weight.detach().T.contiguous())  # [H dk, d]

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Return the layer's hidden states [B, L, d]; `bias` is broadcast to [B, H, L, L]."""
        q, k, v = (
            projected.unflatten(-1, (self.heads, self.size)).transpose(1, 2)  # [B, H, L, dk]
            for projected in (self.norm(hidden) @ self.qkv).chunk(3, dim=-1)
        )
        weights = (q @ k.transpose(2, 3) + bias).softmax(-1)  # [B, H, L, L]
        return hidden + self.adapter((weights @ v).transpose(1, 2).flatten(2) @ self.o)


class SingleNodeAttention(nn.Module):
    """The self-attention of a trie with a single node, which attends only to itself: x + adapter(LN(x) v o)."""

    vo: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.adapter = Norm(layer.layer_norm), Adapter(layer.dropout)
        attention = layer.SelfAttention
        self.register_buffer("vo", (attention.o.weight @ attention.v.weight).detach().T.contiguous())  # [d, d]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the layer's hidden states [B, 1, d]."""
        return hidden + self.adapter(self.norm(hidden) @ self.vo)


class CrossAttention(nn.Module):
    """Norm, attention to the encoded source, and residual.

    With few nodes, the key and value weights are absorbed: keys and values are not computed for every token of the
    source. Instead, the queries are multiplied by the key weights, and the value weights are applied to the averages of
    the source's hidden states, weighted by attention. The result is the same.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor

    def __init__(self, layer: Any, nodes: int) -> None:
        super().__init__()
        self.norm = Norm(layer.layer_norm)
        attention = layer.EncDecAttention
        heads, size = attention.n_heads, attention.key_value_proj_dim
        self.heads, self.size, self.absorbed = heads, size, nodes * ABSORPTION_FACTOR <= size
        q, k, v, o = (getattr(attention, name).weight.detach() for name in "qkvo")
        if self.absorbed:
            k = k.view(heads, size, -1)  # [H, dk, d]
            v = v.view(heads, size, -1).transpose(1, 2)  # [H, d, dk]
        else:
            k, v = k.T, v.T  # [d, H dk]
        for name, value in (("q", q.T), ("k", k), ("v", v), ("o", o.T)):
            self.register_buffer(name, value.contiguous())

    def compute_queries(self, hidden: Tensor) -> Tensor:
        """Compute queries [b, H, N, dk], or [b, H, N, d] with absorbed weights, from hidden states [b, N, d]."""
        q = (self.norm(hidden) @ self.q).unflatten(-1, (self.heads, self.size)).transpose(1, 2)  # [b, H, N, dk]
        return q @ self.k if self.absorbed else q

    def drop_query_weights(self) -> None:
        """Delete the weights that only `compute_queries` uses."""
        del self.norm, self.q
        if self.absorbed:
            del self.k

    def forward(self, hidden: Tensor, queries: Tensor, encoded: Tensor, padding: Tensor) -> Tensor:
        """Return the layer's hidden states [B, N, d].

        Args:
            hidden: hidden states of the nodes, [b, N, d] with b = 1 or B.
            queries: the output of `compute_queries` for `hidden`.
            encoded: the encoder's last hidden states, [B, L, d].
            padding: added to the attention logits, [B, 1, 1, L].
        """
        if self.absorbed:
            states = encoded.unsqueeze(1)  # [B, 1, L, d]
            weights = (queries @ states.transpose(2, 3) + padding).softmax(-1)  # [B, H, N, L]
            attended = weights @ states @ self.v  # [B, H, N, dk]
        else:
            keys, values = (
                (encoded @ weight).unflatten(-1, (self.heads, self.size)).transpose(1, 2)  # [B, H, L, dk]
                for weight in (self.k, self.v)
            )
            attended = (queries @ keys.transpose(2, 3) + padding).softmax(-1) @ values
        return hidden + attended.transpose(1, 2).flatten(2) @ self.o


class T5Graph(nn.Module):
    """An exportable T5: `input_ids`, `attention_mask` [B, L] → `scores`, `probabilities` [B, A].

    In a regression task, it also returns the expected `value` [B].

    Args:
        model: a T5 whose adapters are constants.
        trie: the trie of the task's answers, built for `scoring`.
        scoring: normalization of the token probabilities.
        numbers: numeric value of each answer; None if the task is not a regression task.
        nodes: maximum number of nodes of the tries that share the graph; None if the graph is for this trie only.
    """

    embedding: Tensor
    first: Tensor
    queries: Tensor
    edges: Tensor
    apart: Tensor
    paths: Tensor
    vocabulary: Tensor
    numbers: Tensor

    @torch.no_grad()
    def __init__(
        self, model: Any, trie: Trie, scoring: Scoring, numbers: Sequence[float] | None, nodes: int | None = None
    ) -> None:
        super().__init__()
        plan = TriePlan(trie, model.shared.weight)
        encoder, decoder = model.encoder, model.decoder
        self.constrained, self.tied = scoring == "constrained", model.config.tie_word_embeddings
        self.is_regression = numbers is not None
        self.register_buffer("embedding", model.shared.weight.detach())
        self.encoder = nn.ModuleList(EncoderBlock(block) for block in encoder.block)
        self.encoder_norm = Norm(encoder.final_layer_norm)
        self.max_distance = encoder.block[0].layer[0].SelfAttention.relative_attention_max_distance

        biases: list[Tensor] = []
        for block in decoder.block:
            attention = block.layer[0].SelfAttention
            biases.append(plan.bias(attention).detach() if attention.has_relative_attention_bias else biases[-1])
        nodes = nodes or len(trie.tokens)
        first, *later = (
            DecoderBlock(block, nodes, bias if number else None)
            for number, (block, bias) in enumerate(zip(decoder.block, biases, strict=True))
        )
        self.decoder = nn.ModuleList([first, *later])
        tokens = plan.tokens(model.config.decoder_start_token_id)
        start = decoder.block[0].layer[0]
        hidden = decoder.embed_tokens(tokens).unsqueeze(0)  # [1, N, d]
        normed = start.layer_norm(hidden)
        hidden = hidden + start.dropout(attend_to_states(start.SelfAttention, normed, normed, biases[0]))
        self.register_buffer("first", hidden)
        self.register_buffer("queries", first.across.compute_queries(hidden))
        first.across.drop_query_weights()
        self.decoder_norm = Norm(decoder.final_layer_norm)

        head = model.lm_head.weight.detach()  # [V, d]
        self.scale = model.model_dim**-0.5 if self.tied else 1.0
        self.register_buffer("edges", head[plan.edge_tokens].T.contiguous())  # [d, E]
        self.register_buffer("own", plan.edge_mask)
        self.register_buffer("paths", plan.paths)
        if scoring == "constrained":
            self.register_buffer("apart", plan.edge_bias)
        elif not self.tied:
            self.register_buffer("vocabulary", head)
        if numbers is not None:
            self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.float32).unsqueeze(1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Compute `scores` and `probabilities` [B, A], and in a regression task `value` [B]."""
        encoded, padding = self.encode(input_ids, attention_mask)
        hidden, queries = self.first, self.queries
        for number, block in enumerate(self.decoder):
            hidden = block(hidden, queries if number == 0 else None, encoded, padding)
        hidden = self.decoder_norm(hidden) * self.scale  # [B, N, d]
        steps = hidden @ self.edges  # [B, N, E]
        if self.constrained:
            steps = (steps + self.apart).log_softmax(-1)
        else:
            vocabulary = self.embedding if self.tied else self.vocabulary  # [V, d]
            steps = steps - (vocabulary @ hidden.transpose(1, 2)).logsumexp(1).unsqueeze(2)  # over [B, V, N]
        scores = (steps * self.get_buffer("own")).sum(1) @ self.paths  # [B, A]
        return collect_outputs(scores, self.numbers if self.is_regression else None)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's last hidden states [B, L, d], and the bias that masks padding [B, 1, 1, L]."""
        padding = (1.0 - attention_mask[:, None, None, :].float()) * MASKED_LOGIT
        index, limit = torch.arange(input_ids.shape[1], device=input_ids.device), self.max_distance
        distance = (index.unsqueeze(0) - index.unsqueeze(1)).clamp(-limit, limit) + limit  # [L, L]
        hidden = F.embedding(input_ids, self.embedding)
        bias = padding
        for block in self.encoder:
            assert isinstance(block, EncoderBlock)
            bias = block.bias(distance, padding, bias)
            hidden = block(hidden, bias)
        return self.encoder_norm(hidden), padding


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward of an encoder block.

    `distances` [2 max_distance + 1, H] is the position bias by distance, if the block has a position bias.
    """

    distances: Tensor

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.layer[0].SelfAttention
        self.itself, self.feed_forward = SelfAttention(block.layer[0]), FeedForward(block.layer[-1])
        self.has_bias = attention.has_relative_attention_bias
        if self.has_bias:
            limit = attention.relative_attention_max_distance
            table = attention.compute_bias(limit + 1, limit + 1)[0].detach()  # [H, limit + 1, limit + 1]
            # T5 uses the same bias for all distances beyond `limit` (Raffel et al. 2020, section 2.1)
            by_distance = torch.cat([table[:, 1:, 0].flip(1), table[:, 0]], dim=1)  # [H, 2 limit + 1]
            self.register_buffer("distances", by_distance.T.contiguous())

    def bias(self, distance: Tensor, padding: Tensor, previous: Tensor) -> Tensor:
        """Return position bias plus padding, [B, H, L, L]; a block without position bias uses the previous block's."""
        return F.embedding(distance, self.distances).permute(2, 0, 1) + padding if self.has_bias else previous

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Return the block's hidden states [B, L, d]."""
        return self.feed_forward(self.itself(hidden, bias))


class DecoderBlock(nn.Module):
    """Self-attention between nodes (precomputed for the first block), cross-attention and feed-forward."""

    bias: Tensor

    def __init__(self, block: Any, nodes: int, bias: Tensor | None) -> None:
        super().__init__()
        self.itself: SelfAttention | SingleNodeAttention | None = None
        if bias is not None and nodes > 1:
            self.itself = SelfAttention(block.layer[0])
            self.register_buffer("bias", bias)
        elif bias is not None:
            self.itself = SingleNodeAttention(block.layer[0])
        self.across = CrossAttention(block.layer[1], nodes)
        self.feed_forward = FeedForward(block.layer[-1])

    def forward(self, hidden: Tensor, queries: Tensor | None, encoded: Tensor, padding: Tensor) -> Tensor:
        """Return the block's hidden states [B, N, d].

        Args:
            hidden: hidden states of the nodes, [b, N, d] with b = 1 or B.
            queries: precomputed queries of the cross-attention; None computes them.
            encoded: the encoder's last hidden states, [B, L, d].
            padding: added to the attention logits, [B, 1, 1, L].
        """
        if isinstance(self.itself, SelfAttention):
            hidden = self.itself(hidden, self.bias)
        elif self.itself is not None:
            hidden = self.itself(hidden)
        if queries is None:
            queries = self.across.compute_queries(hidden)
        return self.feed_forward(self.across(hidden, queries, encoded, padding))
