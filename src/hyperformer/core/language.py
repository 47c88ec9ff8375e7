"""Whether a tokenizer knows the language of texts."""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN_SHARE = 0.01
"""Share of unknown tokens above which a text is not in the tokenizer's language."""
LETTER_SHARE = 0.5
"""Share of single letters among the tokens of letters above which a text is not in the tokenizer's language."""
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
"""A multilingual encoder on the Hub, for advice."""
MARKS = "#▁Ġ"
"""Characters that tokenizers add to tokens."""


CHARACTERS = 1000
"""Size of a vocabulary below which tokens are characters or bytes in every language."""


class TokenCounts:
    """Counts of the tokens of texts.

    Args:
        vocabulary: number of tokens that the tokenizer knows.
    """

    def __init__(self, vocabulary: int) -> None:
        self._has_words = vocabulary >= CHARACTERS
        self.tokens = self.unknown = self.pieces = self.letters = 0

    def add(self, tokens: Iterable[str], unknown: str | None) -> None:
        """Count the tokens of a text; `unknown` is the token for what the tokenizer does not know."""
        for token in tokens:
            self.tokens += 1
            self.unknown += token == unknown
            piece = token.strip(MARKS)
            self.pieces += piece.isalpha()
            self.letters += len(piece) == 1 and piece.isalpha()

    def describe_problem(self) -> str | None:
        """Return a sentence that says that the texts are in another language, with advice; None if they are not."""
        advice = f"use a backbone for the language of the rows, such as {MULTILINGUAL}"
        if self.unknown > UNKNOWN_SHARE * self.tokens:
            return f"{self.unknown / self.tokens:.1%} of the tokens are unknown; {advice}"
        if self._has_words and self.letters > LETTER_SHARE * max(self.pieces, 1):
            return f"{self.letters / self.pieces:.0%} of the tokens of words are single letters; {advice}"
        return None
