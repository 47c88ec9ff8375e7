"""Tokenization in bounded time: `max_source_tokens` limits the number of characters of a text that are read.

Only the first `CHARACTERS * max_source_tokens` characters of a text are read. A shorter prefix of these characters is
encoded first. A tokenizer encodes each pre-token independently. Therefore all but the last pre-tokens of a prefix have
the same tokens as in the whole text. If these tokens are enough, nothing else is encoded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hyperformer.core.types import Source

CHARACTERS = 32
"""Maximum number of characters that are read of a text, for each token of `max_source_tokens`.

The longer text of a pair, which is truncated first, is the one with more tokens; the number of tokens of each text is
counted up to `CHARACTERS * max_source_tokens`.
"""
PREFIX = 8
"""Characters encoded first, for each token of `max_source_tokens`; a token of ordinary text has fewer characters."""
UNSETTLED = 8
"""Number of pre-tokens at the end of a prefix that later characters can change; <extra_id_0> alone can have seven."""
BATCH = 1 << 16
"""Maximum number of characters that are encoded at once, to limit memory; a longer text is encoded alone."""


class _Tokens(NamedTuple):
    """Tokens of a text, without special tokens.

    Attributes:
        ids: The first token ids, at most as many as a source may have.
        length: Number of tokens of the text; for a prefix, the number of tokens that no later character can change.
        is_whole: Whether all characters that may be read of the text were encoded.
    """

    ids: list[int]
    length: int
    is_whole: bool


def encode(tokenizer: Any, sources: Sequence[Source], longest: int) -> tuple[list[list[int]], list[bool]]:
    """Encode sources, truncate them, and add the tokenizer's special tokens.

    Args:
        tokenizer: A `tokenizers.Tokenizer` without truncation and padding.
        sources: Texts or text pairs.
        longest: Maximum number of tokens of a source, special tokens included.

    Returns:
        Token ids of each source, and whether each was truncated.
    """
    rows = [[source] if isinstance(source, str) else list(source) for source in sources]
    prefixes = _read(tokenizer, [text for row in rows for text in row], longest, PREFIX)
    special = {count: get_special_tokens(tokenizer, count) for count in {len(row) for row in rows}}
    ids, truncated = [], []
    for row in rows:
        delimiters = special[len(row)]
        room = max(0, longest - sum(map(len, delimiters)))
        tokens = _complete(tokenizer, row, [next(prefixes) for _ in row], longest, room)
        counts = [min(text.length, CHARACTERS * longest) for text in tokens]
        joined = list(delimiters[0])
        for text, kept, after in zip(tokens, split_budget(counts, room), delimiters[1:], strict=True):
            joined += text.ids[:kept] + after
        ids.append(joined)
        truncated.append(sum(counts) > room or any(len(text) > CHARACTERS * longest for text in row))
    return ids, truncated


def get_special_tokens(tokenizer: Any, count: int) -> list[list[int]]:
    """Return the special tokens before, between and after `count` texts."""
    encoding = tokenizer.encode(*["a"] * count)
    delimiters: list[list[int]] = [[] for _ in range(count + 1)]
    position = 0
    for token, sequence in zip(encoding.ids, encoding.sequence_ids, strict=True):
        if sequence is None:
            delimiters[position].append(token)
        else:
            position = sequence + 1
    return delimiters


def split_budget(counts: Sequence[int], room: int) -> list[int]:
    """Return the number of tokens to keep of each text, at most `room` in total; truncate as `tokenizers` does."""
    if sum(counts) <= room:
        return list(counts)
    if len(counts) == 1:
        return [room]
    short, long = min(counts), max(min(counts), room - min(counts))
    if short + long > room:
        short, long = room // 2, room - room // 2
    return [long, short] if counts[0] > counts[1] else [short, long]


def _read(tokenizer: Any, texts: Sequence[str], longest: int, scale: int) -> Iterator[_Tokens]:
    """Encode the first `scale * longest` characters of each text."""
    characters = scale * longest
    for batch in _batches(texts, characters):
        encodings = tokenizer.encode_batch([text[:characters] for text in batch], add_special_tokens=False)
        for text, encoding in zip(batch, encodings, strict=True):
            is_whole = scale == CHARACTERS or len(text) <= characters
            size = len(encoding) if is_whole else _count_settled(encoding.word_ids)
            yield _Tokens(encoding.ids[:longest], size, is_whole)


def _batches(texts: Sequence[str], characters: int) -> Iterator[list[str]]:
    """Split texts into batches of at most `BATCH` characters, or of a single text."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = min(len(text), characters)
        if batch and size + length > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


def _count_settled(pre_tokens: list[int]) -> int:
    """Count the tokens that no later character can change, from the pre-token index of each token."""
    return bisect_left(pre_tokens, pre_tokens[-1] - UNSETTLED + 1) if pre_tokens else 0


def _complete(tokenizer: Any, texts: Sequence[str], tokens: list[_Tokens], longest: int, room: int) -> list[_Tokens]:
    """Encode all characters that may be read of each text whose prefix has too few tokens."""
    for index, text in enumerate(texts):
        if not tokens[index].is_whole and tokens[index].length <= _needed(tokens, index, longest, room):
            tokens[index] = next(_read(tokenizer, [text], longest, CHARACTERS))
    return tokens


def _needed(tokens: Sequence[_Tokens], index: int, longest: int, room: int) -> int:
    """Return the number of tokens that a prefix must exceed to decide which tokens of each text are kept.

    For a single text, this number is `room`. For two texts, the prefix must also decide which text is longer.
    """
    others = [other for position, other in enumerate(tokens) if position != index]
    if all(other.is_whole for other in others):
        return min(max([room, *(other.length for other in others)]), CHARACTERS * longest)
    return CHARACTERS * longest
