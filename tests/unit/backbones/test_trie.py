"""Answers as a prefix trie."""

from __future__ import annotations

from random import Random

import pytest

from hyperformer.backbones.trie import build_trie

ANSWERS = [(7, 1), (7, 8, 1), (9, 4, 5, 1)]


def test_likelihood_scores_every_token_of_every_answer_and_shares_what_is_common():
    answer_trie = build_trie(ANSWERS, "likelihood")
    assert answer_trie.tokens == (None, 7, 9, 8, 4, 5)
    assert answer_trie.parents == (0, 0, 0, 1, 2, 4)
    assert answer_trie.depths == [0, 1, 1, 2, 2, 3]
    assert [answer_trie.edges[edge] for edge in answer_trie.paths[1]] == [(0, 7), (1, 8), (3, 1)]
    assert answer_trie.ancestors(5) == [5, 4, 2, 0]
    assert len(answer_trie.edges) == 8


def test_constrained_keeps_only_the_nodes_where_answers_branch_and_their_ancestors():
    answer_trie = build_trie(ANSWERS, "constrained")
    assert answer_trie.tokens == (None, 7)
    assert answer_trie.edges == ((0, 7), (0, 9), (1, 1), (1, 8))
    assert answer_trie.paths == ((0, 2), (0, 3), (1,))


def test_answers_that_differ_in_the_first_token_need_only_the_root():
    answer_trie = build_trie([(5, 1), (6, 1), (4, 2, 1)], "constrained")
    assert answer_trie.tokens == (None,)
    assert answer_trie.paths == ((0,), (1,), (2,))


def test_a_common_prefix_has_nodes_but_is_not_scored():
    answer_trie = build_trie([(3, 5, 1), (3, 6, 1)], "constrained")
    assert answer_trie.tokens == (None, 3)
    assert answer_trie.edges == ((1, 5), (1, 6))


@pytest.mark.parametrize("seed", range(20))
def test_the_path_of_an_answer_has_its_tokens(seed):
    draw = Random(seed)
    answers = list(
        {(*(draw.randrange(2, 5) for _ in range(draw.randrange(1, 6))), 1) for _ in range(draw.randrange(2, 12))}
    )
    full = build_trie(answers, "likelihood")
    for answer, path in zip(answers, full.paths, strict=True):
        assert tuple(full.edges[edge][1] for edge in path) == answer
    constrained = build_trie(answers, "constrained")
    assert len({path for path in constrained.paths}) == len(answers)
    assert all(parent < node for node, parent in enumerate(constrained.parents) if node)
    for node in range(len(constrained.tokens)):
        leaving = [token for source, token in constrained.edges if source == node]
        assert len(leaving) != 1
        assert len(set(leaving)) == len(leaving)
