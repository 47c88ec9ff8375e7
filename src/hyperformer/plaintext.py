"""Pretraining rows from any text: span corruption, and what a text itself can be asked.

From span corruption alone a small decoder learns to begin with the same sentinel whatever the source says, and nothing
that begins with an answer can then be trained through it. So most rows ask for words that stand in the source: all of
them, the rarest, those that two texts share. A small model learns to copy first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

from hyperformer.types import HyperFormerError

Words = list[str]
Row = dict[str, str]

FEWEST = 5  # words of a piece
REPEATED, KEYWORDS, SIDE = 12, 4, 12  # most words that are repeated, named, or stand on one side of a pair
COMMON = 100  # so many commonest words are no keywords
FIRST, LATER = 0.1, 0.55  # until which share of the rows words are only repeated, and nothing is judged


def rows(file: str, extra: Iterable[str], count: int, words: int, seed: int) -> Iterator[Row]:
    """`count` rows of `source` and `target`, to be read in order; an empty target is for span corruption.

    Args:
        file: a text file, a paragraph a line.
        extra: more texts.
        words: the longest piece that a paragraph is cut into. Pieces come in random order, and again where there are
            fewer than `count`.
    Raises:
        HyperFormerError: the file cannot be read, or holds too little text.
    """
    pieces: list[Words] = []
    for line in [*_lines(file), *extra]:
        parts = line.split()
        pieces += [parts[i : i + words] for i in range(0, len(parts), words) if len(parts[i : i + words]) >= FEWEST]
    if not pieces:
        raise HyperFormerError(
            f"pretraining.text_file: {file} holds no text of more than four words; name a file with text"
        )
    random = Random(f"{seed}/text")
    rare = _Rare(word for piece in pieces for word in piece)
    random.shuffle(pieces)
    for number in range(count):
        piece, other = pieces[number % len(pieces)], random.choice(pieces)
        shares = TELLING if number < LATER * count else JUDGING
        ask = _repeat if number < FIRST * count else random.choices(list(shares), list(shares.values()))[0]
        source, target = ask(random, piece, other, rare)
        yield {"source": source, "target": target}


class _Rare:
    """The words of a text that say most: alphabetic, and not among the commonest of all texts."""

    def __init__(self, words: Iterable[str]) -> None:
        self.counts = Counter(word.lower() for word in words)
        self.common = {word for word, _ in self.counts.most_common(COMMON)}

    def __call__(self, words: Sequence[str]) -> Words:
        return [word for word in dict.fromkeys(words) if word.isalpha() and word.lower() not in self.common]


def _corrupt(rng: Random, piece: Words, other: Words, rare: _Rare) -> tuple[str, str]:
    return " ".join(piece), ""


def _repeat(rng: Random, piece: Words, other: Words, rare: _Rare) -> tuple[str, str]:
    """Words in no order, to be said again."""
    words = " ".join(rng.sample(piece, min(len(piece), REPEATED)))
    return f"repeat: {words}", words


def _keywords(rng: Random, piece: Words, other: Words, rare: _Rare) -> tuple[str, str]:
    """The rarest words of a text, the rarest first."""
    named = sorted(rare(piece), key=lambda word: rare.counts[word.lower()])[:KEYWORDS]
    return f"keywords: {' '.join(piece)}", " ".join(named) or "none"


def _shared(rng: Random, piece: Words, other: Words, rare: _Rare) -> tuple[str, str]:
    """Two texts; the words that say most and stand in both, in the order of the first."""
    first = piece[:SIDE]
    second = [word for word in first if rng.random() < 0.5] + other[: rng.randint(2, SIDE // 2)]
    if rng.random() < 0.5:
        rng.shuffle(second)
    again = {word.lower() for word in second}
    target = " ".join(word for word in rare(first) if word.lower() in again)
    return f"shared: {' '.join(first)} / {' '.join(second)}", target or "none"


def _follows(rng: Random, piece: Words, other: Words, rare: _Rare) -> tuple[str, str]:
    """Two halves; whether they are of one text."""
    half = len(piece) // 2
    second, target = (piece[half:], "indeed") if rng.random() < 0.5 else (other[len(other) // 2 :], "elsewhere")
    return f"follows: {' '.join(piece[:half])} / {' '.join(second)}", target


Ask = Callable[[Random, Words, Words, _Rare], tuple[str, str]]
TELLING: dict[Ask, float] = {_corrupt: 2, _repeat: 1, _keywords: 3, _shared: 3}
JUDGING: dict[Ask, float] = {**TELLING, _follows: 2}


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HyperFormerError(
            f"pretraining.text_file: {file} cannot be read as UTF-8 text ({error}); name a readable file"
        ) from None
