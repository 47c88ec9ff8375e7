"""A reader of the language that knows its words but none of the code that makes sentences."""

from __future__ import annotations

import re
from typing import Any

from hyperformer.embedded import language


def _plural(word: str) -> str:
    return {"person": "people"}.get(word) or (re.sub(r"(?<=[^aeiou])y$", "ie", word) + "s")


def _by_word(groups: list[Any]) -> dict[str, str]:
    return {word: group[0] for group in groups for word in group}


HEADS = {word: (noun.words[0], False) for noun in [*language.NOUNS, *language.KINDS.values()] for word in noun.words}
HEADS |= {_plural(word): (plain, True) for word, (plain, _) in HEADS.items()} | {
    name.lower(): (name, False) for name in language.NAMES
}
ADJECTIVES = _by_word([*language.ADJECTIVES, *language.COLOURS])
VERBS = {
    form: verb.words[0][0] for verb in language.ACTIONS + language.STATES for forms in verb.words for form in forms
}
PLACES, TIMES = _by_word(language.PLACES), _by_word(language.TIMES)
OPPOSITE_VERBS = {one.words[0][0]: other.words[0][0] for one, other in language.OPPOSITE_ACTIONS.items()}


def sentences(*texts: str) -> list[str]:
    """The sentences of some texts, lower case."""
    return [part.strip().lower() for text in texts for part in re.findall(r"[^.?]+[.?]", text)]


def read(text: str) -> dict[str, Any]:
    """What a statement or a polar question says: agent, verb, patient, place, time, negated.

    A participant is (determiner, adjective, plain noun or name, plural); "a" and "an" are one.
    """
    words = re.sub(r"[.,?]", "", text.lower())
    found: dict[str, Any] = {"place": None, "time": None}
    for role, phrases in (("place", PLACES), ("time", TIMES)):
        for phrase, plain in phrases.items():
            if re.search(rf"\b{phrase}\b", words):
                assert found[role] is None, text
                found[role], words = plain, re.sub(rf"\b{phrase}\b", " ", words)
    tokens = words.split()
    heads = [i for i, token in enumerate(tokens) if token in HEADS]
    assert len(heads) in (1, 2), text
    participants = []
    for previous, head in zip([-1, *heads], heads, strict=False):
        before = tokens[max(previous + 1, head - 2) : head]
        head_word, plural = HEADS[tokens[head]]
        if head_word in language.NAMES:
            participants.append(("", "", head_word, False))
            continue
        adjective = ADJECTIVES.get(before[-1], "")
        determiner = before[-2 if adjective else -1]
        participants.append(({"an": "a"}.get(determiner, determiner), adjective, head_word, plural))
    verbs = [token for token in tokens[heads[0] + 1 :] if token in VERBS]
    passive = "by" in tokens
    agent, patient = (participants[1], participants[0]) if passive else (participants[0], (*participants, None)[1])
    return {**found, "agent": agent, "patient": patient, "verb": VERBS[verbs[0]], "negated": "not" in tokens}


def judged(text: str) -> bool:
    """Whether a sentence with an opinion is good: what outweighs counts, and a negator turns it round."""
    words = text.lower().rstrip(".")
    if " but " in words:
        words = words.split(" but ")[1]
    elif "although " in words:
        before, after = words.split("although ")
        words = before if before.rstrip().endswith(",") else after.split(", ")[1]
    good = any(re.search(rf"\b{word}\b", words) for word in language.PRAISE)
    assert good != any(re.search(rf"\b{word}\b", words) for word in language.BLAME), text
    return good != any(re.search(rf"\b{word}\b", words) for word in language.NEGATORS)
