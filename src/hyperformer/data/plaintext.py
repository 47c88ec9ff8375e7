"""Pretraining rows from plain text: span corruption, and objectives whose targets come from the text itself.

With span corruption alone, a small decoder learns to start every target with the same sentinel. Fine-tuning then fails
for tasks whose target starts with the answer. Therefore most rows ask for words of the source: all words, the rarest
words, or the words that two texts share. The first rows only ask to repeat words, because a small model
must first learn to copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

from hyperformer.core.errors import HyperFormerError

Words = list[str]
Row = dict[str, str]

MIN_WORDS = 5
"""Minimum number of words of a text; shorter texts are dropped."""
MAX_REPEATED = 12
"""Maximum number of words to repeat."""
MAX_KEYWORDS = 4
"""Maximum number of keywords of a text."""
MAX_SIDE = 12
"""Maximum number of words of the first text, in rows that ask for the words that two texts share."""
COMMON = 100
"""Number of most frequent words, which targets of the objectives `_keywords` and `_shared` leave out."""
REPEAT_UNTIL = 0.1
"""Fraction of the rows, at the beginning, that only ask to repeat words."""
COPY_UNTIL = 0.55
"""Fraction of the rows, at the beginning, that use only the objectives in `COPYING`."""


def generate_rows(file: str, extra: Iterable[str], count: int, max_words: int, seed: int) -> Iterator[Row]:
    """Yield pretraining rows of `source` and `target`; an empty target marks a source for span corruption.

    Paragraphs are split into texts, which come in random order and are repeated until there are `count` rows. The
    order of the rows is a curriculum and must not change.

    Args:
        file: Path of a text file with one paragraph per line.
        extra: Further paragraphs.
        count: Number of rows.
        max_words: Maximum length of a text, in words.
        seed: Seed of the random choices.

    Raises:
        HyperFormerError: The file cannot be read, or no paragraph has enough words.
    """
    texts: list[Words] = []
    for line in [*_read_lines(file), *extra]:
        split = line.split()
        chunks = [split[i : i + max_words] for i in range(0, len(split), max_words)]
        texts += [chunk for chunk in chunks if len(chunk) >= MIN_WORDS]
    if not texts:
        raise HyperFormerError(
            f"pretraining.text_file: {file} has no line of at least {MIN_WORDS} words; use a file with more text"
        )
    random = Random(f"{seed}/text")
    rare = _RareWords(word for text in texts for word in text)
    random.shuffle(texts)
    for number in range(count):
        text, other = texts[number % len(texts)], random.choice(texts)
        weights = COPYING if number < COPY_UNTIL * count else ALL
        objective = (
            _repeat if number < REPEAT_UNTIL * count else random.choices(list(weights), list(weights.values()))[0]
        )
        source, target = objective(random, text, other, rare)
        yield {"source": source, "target": target}


class _RareWords:
    """Filter for the informative words of a text: alphabetic, and not among the most frequent of all texts."""

    def __init__(self, corpus: Iterable[str]) -> None:
        self.counts = Counter(word.lower() for word in corpus)
        self.common = {word for word, _ in self.counts.most_common(COMMON)}

    def __call__(self, text: Sequence[str]) -> Words:
        return [word for word in dict.fromkeys(text) if word.isalpha() and word.lower() not in self.common]


def _corrupt(rng: Random, text: Words, other: Words, rare: _RareWords) -> tuple[str, str]:
    return " ".join(text), ""


def _repeat(rng: Random, text: Words, other: Words, rare: _RareWords) -> tuple[str, str]:
    """Ask to repeat shuffled words."""
    target = " ".join(rng.sample(text, min(len(text), MAX_REPEATED)))
    return f"repeat: {target}", target


def _keywords(rng: Random, text: Words, other: Words, rare: _RareWords) -> tuple[str, str]:
    """Ask for the rarest words of a text, the rarest first."""
    keywords = sorted(rare(text), key=lambda word: rare.counts[word.lower()])[:MAX_KEYWORDS]
    return f"keywords: {' '.join(text)}", " ".join(keywords) or "none"


def _shared(rng: Random, text: Words, other: Words, rare: _RareWords) -> tuple[str, str]:
    """Ask for the rare words that two texts share, in the order of the first text."""
    first = text[:MAX_SIDE]
    second = [word for word in first if rng.random() < 0.5] + other[: rng.randint(2, MAX_SIDE // 2)]
    if rng.random() < 0.5:
        rng.shuffle(second)
    lowercase = {word.lower() for word in second}
    target = " ".join(word for word in rare(first) if word.lower() in lowercase)
    return f"shared: {' '.join(first)} / {' '.join(second)}", target or "none"


def _follows(rng: Random, text: Words, other: Words, rare: _RareWords) -> tuple[str, str]:
    """Ask whether two halves come from the same text."""
    half = len(text) // 2
    second, target = (text[half:], "indeed") if rng.random() < 0.5 else (other[len(other) // 2 :], "elsewhere")
    return f"follows: {' '.join(text[:half])} / {' '.join(second)}", target


Objective = Callable[[Random, Words, Words, _RareWords], tuple[str, str]]
COPYING: dict[Objective, float] = {_corrupt: 2, _repeat: 1, _keywords: 3, _shared: 3}
"""Weights of span corruption and of the objectives whose targets are words of the source."""
ALL: dict[Objective, float] = {**COPYING, _follows: 2}
"""Weights of all objectives."""


def _read_lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HyperFormerError(
            f"pretraining.text_file: {file} cannot be read as UTF-8 text ({error}); use a readable UTF-8 file"
        ) from None
