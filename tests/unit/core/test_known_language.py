"""Texts whose language a tokenizer does not know."""

from __future__ import annotations

import pytest

from hyperformer.core.language import TokenCounts

CYRILLIC = "ж ##щ ##ю ##я ##ф ц ##ш".split()


@pytest.mark.parametrize(
    ("tokens", "vocabulary", "problem"),
    [
        ("the par ##cel was late , i am a bit sad .".split(), 30000, None),
        (CYRILLIC, 30000, "100% of the tokens of words are single letters; use a backbone for the language"),
        ("▁ж щ ю я ф ▁цш".split(), 30000, "83% of the tokens of words are single letters"),
        (CYRILLIC, 384, None),
        (["parcel"] * 40 + ["[UNK]"], 30000, "2.4% of the tokens are unknown; use a backbone for the language"),
        (["parcel"] * 200 + ["[UNK]"], 30000, None),
        ([], 30000, None),
    ],
)
def test_unknown_tokens_and_single_letters_are_another_language(tokens, vocabulary, problem):
    counts = TokenCounts(vocabulary)
    counts.add(tokens, "[UNK]")
    description = counts.describe_problem()
    assert description is None if problem is None else str(description).startswith(problem)
