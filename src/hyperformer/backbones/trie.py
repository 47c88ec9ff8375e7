"""The answers of a classification or regression task as a prefix trie: shared prefixes are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyperformer.core.types import Scoring


@dataclass(frozen=True)
class Trie:
    """The prefixes of answers that scoring needs, and the tokens that are scored after each prefix.

    Attributes:
        tokens: last token of each node's prefix; None for the first node, the root.
        parents: parent of each node, an earlier node; the root is its own parent.
        edges: (node, next token) of every scored step, ordered by node.
        paths: for each answer, the edges whose scores add up to the answer's score.
    """

    tokens: tuple[int | None, ...]
    parents: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def depths(self) -> list[int]:
        """The length of each node's prefix."""
        depths: list[int] = []
        for node, parent in enumerate(self.parents):
            depths.append(depths[parent] + 1 if node else 0)
        return depths

    def ancestors(self, node: int) -> list[int]:
        """Return the nodes that a node attends to: itself and its ancestors, up to the root."""
        nodes = [node]
        while nodes[-1]:
            nodes.append(self.parents[nodes[-1]])
        return nodes


def build_trie(answers: Sequence[Sequence[int]], scoring: Scoring) -> Trie:
    """Build the trie of answers.

    `likelihood` scores every step of every answer. `constrained` scores only the steps where answers branch, because
    all other steps have probability 1; prefixes without a later branch are left out.

    Args:
        answers: token ids of each answer; all end in the same token.
        scoring: normalization of the token probabilities.
    """
    children: dict[tuple[int, ...], list[int]] = {}
    for answer in answers:
        for index, token in enumerate(answer):
            following = children.setdefault(tuple(answer[:index]), [])
            if token not in following:
                following.append(token)
    scored = {prefix for prefix, tokens in children.items() if len(tokens) > 1 or scoring == "likelihood"}
    needed = {prefix[:length] for prefix in scored for length in range(len(prefix) + 1)}
    nodes = {prefix: number for number, prefix in enumerate(sorted(needed, key=lambda prefix: (len(prefix), prefix)))}
    edges = {(prefix, token): None for prefix in nodes if prefix in scored for token in children[prefix]}
    indices = {edge: index for index, edge in enumerate(edges)}
    steps = [[(tuple(answer[:index]), token) for index, token in enumerate(answer)] for answer in answers]
    return Trie(
        tokens=tuple(prefix[-1] if prefix else None for prefix in nodes),
        parents=tuple(nodes[prefix[:-1]] for prefix in nodes),
        edges=tuple((nodes[prefix], token) for prefix, token in edges),
        paths=tuple(tuple(indices[step] for step in answer if step in indices) for answer in steps),
    )
