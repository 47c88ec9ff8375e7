"""Grammatical faults, which make a sentence unacceptable."""

from __future__ import annotations

from random import Random

from hyperformer.embedded.lexicon import ACTIONS, KINDS, NAMES, NOUNS, STATES, pluralize
from hyperformer.embedded.sentences import format_sentence

AGREEMENT = {"is": "are", "are": "is", "was": "were", "were": "was", "does": "do", "do": "does"}
FORMS = {word: forms for verb in ACTIONS + STATES for forms in verb.synonyms for word in forms}
NUMBERS = {word: pluralize(word) for noun in [*NOUNS, *KINDS.values()] for word in noun.synonyms}
SINGULARS = {plural: word for word, plural in NUMBERS.items()}


def _break_verb(rng: Random, tokens: list[str]) -> bool:
    """Break agreement, or the verb form after an auxiliary; return False if neither is possible."""
    auxiliary = next((i for i, word in enumerate(tokens) if word in AGREEMENT or word == "did"), None)
    verb = next((i for i, word in enumerate(tokens) if word in FORMS), None)
    if auxiliary is not None and tokens[auxiliary] in AGREEMENT and (verb is None or rng.random() < 0.5):
        tokens[auxiliary] = AGREEMENT[tokens[auxiliary]]
        return True
    if verb is None:
        return False
    base, third, past, _ = FORMS[tokens[verb]]
    if auxiliary is not None:
        tokens[verb] = rng.choice((third, past) if tokens[auxiliary] in ("do", "does", "did") else (base, third))
        return True
    if tokens[verb] not in (base, third):
        return False
    tokens[verb] = third if tokens[verb] == base else base
    return True


def _break_number(rng: Random, tokens: list[str]) -> bool:
    """Give a noun after "a" or "two" the wrong form, singular or plural; return False if there is no such noun."""
    positions = [i for i, word in enumerate(tokens) if word in ("a", "an", "two")]
    if not positions:
        return False
    start = rng.choice(positions)
    for i in range(start + 1, min(start + 3, len(tokens))):
        bare = tokens[i].strip(",")
        other = SINGULARS.get(bare) if tokens[start] == "two" else NUMBERS.get(bare)
        if other:
            tokens[i] = tokens[i].replace(bare, other)
            return True
    return False


def add_fault(rng: Random, text: str) -> str | None:
    """Return the sentence with a random grammatical fault, or None if it does not allow the fault.

    A fault is two exchanged words, a wrong verb form, a wrong singular or plural, a missing word or a doubled word.
    """
    tokens = text[:-1].split()
    tokens[0] = tokens[0] if tokens[0] in NAMES else tokens[0].lower()
    kind = rng.random()
    if kind < 0.3:
        i = rng.randrange(len(tokens) - 1)
        tokens[i], tokens[i + 1] = tokens[i + 1].strip(","), tokens[i].strip(",")
    elif kind < 0.6:
        if not _break_verb(rng, tokens):
            return None
    elif kind < 0.75:
        if not _break_number(rng, tokens):
            return None
    elif kind < 0.9:
        positions = [
            i for i, word in enumerate(tokens) if word in ("the", "a", "an", "by", "in", "at", "on", "is", "was")
        ]
        if not positions:
            return None
        del tokens[rng.choice(positions)]
    else:
        i = rng.randrange(len(tokens))
        tokens.insert(i, tokens[i].strip(","))
    return format_sentence(" ".join(tokens), text[-1])
