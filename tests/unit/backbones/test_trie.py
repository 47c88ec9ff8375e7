"""Answers as a prefix trie."""

from __future__ import annotations

from random import Random

import pytest

from hyperformer.backbones.trie import trie

ANSWERS = [(7, 1), (7, 8, 1), (9, 4, 5, 1)]


def test_likelihood_scores_every_token_of_every_answer_and_shares_what_is_common():
    found = trie(ANSWERS, "likelihood")
    assert found.tokens == (None, 7, 9, 8, 4, 5)
    assert found.parents == (0, 0, 0, 1, 2, 4)
    assert found.depths == [0, 1, 1, 2, 2, 3]
    assert [found.edges[edge] for edge in found.paths[1]] == [(0, 7), (1, 8), (3, 1)]
    assert found.seen(5) == [5, 4, 2, 0]
    assert len(found.edges) == 8


def test_constrained_keeps_only_where_answers_part_and_the_way_there():
    found = trie(ANSWERS, "constrained")
    assert found.tokens == (None, 7)
    assert found.edges == ((0, 7), (0, 9), (1, 1), (1, 8))
    assert found.paths == ((0, 2), (0, 3), (1,))


def test_answers_that_differ_at_once_need_the_root_alone():
    found = trie([(5, 1), (6, 1), (4, 2, 1)], "constrained")
    assert found.tokens == (None,)
    assert found.paths == ((0,), (1,), (2,))


def test_a_common_beginning_is_walked_but_not_scored():
    found = trie([(3, 5, 1), (3, 6, 1)], "constrained")
    assert found.tokens == (None, 3)
    assert found.edges == ((1, 5), (1, 6))


@pytest.mark.parametrize("seed", range(20))
def test_every_answers_path_spells_it(seed):
    draw = Random(seed)
    answers = list(
        {(*(draw.randrange(2, 5) for _ in range(draw.randrange(1, 6))), 1) for _ in range(draw.randrange(2, 12))}
    )
    whole = trie(answers, "likelihood")
    for answer, path in zip(answers, whole.paths, strict=True):
        assert tuple(whole.edges[edge][1] for edge in path) == answer
    parted = trie(answers, "constrained")
    assert len({path for path in parted.paths}) == len(answers)
    assert all(parent < node for node, parent in enumerate(parted.parents) if node)
    for node in range(len(parted.tokens)):
        leaving = [token for place, token in parted.edges if place == node]
        assert len(leaving) != 1
        assert len(set(leaving)) == len(leaving)
