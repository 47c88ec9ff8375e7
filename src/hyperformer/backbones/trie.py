"""A closed task's answers as a prefix trie: what they share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyperformer.types import Scoring


@dataclass(frozen=True)
class Trie:
    """The prefixes of answers that a score needs, and what is scored after each.

    Attributes:
        tokens: the token that leads to each node; None leads to the first, the root.
        parents: each node's parent, an earlier node; the root's is itself.
        edges: (node, next token) of every step that is scored, node by node.
        paths: for each answer, the edges whose scores add up to its own.
    """

    tokens: tuple[int | None, ...]
    parents: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def depths(self) -> list[int]:
        """How many tokens lead to each node."""
        found: list[int] = []
        for node, parent in enumerate(self.parents):
            found.append(found[parent] + 1 if node else 0)
        return found

    def seen(self, node: int) -> list[int]:
        """The nodes that a node attends to: itself and those on its way from the root."""
        found = [node]
        while found[-1]:
            found.append(self.parents[found[-1]])
        return found


def trie(answers: Sequence[Sequence[int]], scoring: Scoring) -> Trie:
    """The trie of answers, token ids that end in one and the same last token.

    For `likelihood` every step of every answer is scored. For `constrained` only those where answers part: others are
    certain, and prefixes after which nothing parts are left out.
    """
    children: dict[tuple[int, ...], list[int]] = {}
    for answer in answers:
        for place, token in enumerate(answer):
            following = children.setdefault(tuple(answer[:place]), [])
            if token not in following:
                following.append(token)
    scored = {prefix for prefix, tokens in children.items() if len(tokens) > 1 or scoring == "likelihood"}
    needed = {prefix[:length] for prefix in scored for length in range(len(prefix) + 1)}
    nodes = {prefix: number for number, prefix in enumerate(sorted(needed, key=lambda prefix: (len(prefix), prefix)))}
    edges = {(prefix, token): None for prefix in nodes if prefix in scored for token in children[prefix]}
    places = {edge: place for place, edge in enumerate(edges)}
    steps = [[(tuple(answer[:place]), token) for place, token in enumerate(answer)] for answer in answers]
    return Trie(
        tokens=tuple(prefix[-1] if prefix else None for prefix in nodes),
        parents=tuple(nodes[prefix[:-1]] for prefix in nodes),
        edges=tuple((nodes[prefix], token) for prefix, token in edges),
        paths=tuple(tuple(places[step] for step in answer if step in places) for answer in steps),
    )
