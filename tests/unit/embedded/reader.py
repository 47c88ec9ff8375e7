"""A parser of the language that uses its vocabulary, but not the code that renders sentences."""

from __future__ import annotations

import re
from typing import Any

from hyperformer.embedded import lexicon


def _plural(word: str) -> str:
    return {"person": "people"}.get(word) or (re.sub(r"(?<=[^aeiou])y$", "ie", word) + "s")


def _by_word(groups: list[Any]) -> dict[str, str]:
    return {word: group[0] for group in groups for word in group}


HEADS = {
    word: (noun.synonyms[0], False) for noun in [*lexicon.NOUNS, *lexicon.KINDS.values()] for word in noun.synonyms
}
HEADS |= {_plural(word): (basic, True) for word, (basic, _) in HEADS.items()} | {
    name.lower(): (name, False) for name in lexicon.NAMES
}
ADJECTIVES = _by_word([*lexicon.ADJECTIVES, *lexicon.COLOURS])
VERBS = {
    form: verb.synonyms[0][0] for verb in lexicon.ACTIONS + lexicon.STATES for forms in verb.synonyms for form in forms
}
PLACES, TIMES = _by_word(lexicon.PLACES), _by_word(lexicon.TIMES)
OPPOSITE_VERBS = {verb.synonyms[0][0]: other.synonyms[0][0] for verb, other in lexicon.OPPOSITE_ACTIONS.items()}


def split_sentences(*texts: str) -> list[str]:
    """Return the sentences of some texts in lower case."""
    return [sentence.strip().lower() for text in texts for sentence in re.findall(r"[^.?]+[.?]", text)]


def parse(text: str) -> dict[str, Any]:
    """Return agent, verb, patient, place, time and negation of a statement or a polar question.

    A participant is (determiner, adjective, basic noun or name, plural); "an" is read as "a".
    """
    rest = re.sub(r"[.,?]", "", text.lower())
    circumstances: dict[str, Any] = {"place": None, "time": None}
    for role, phrases in (("place", PLACES), ("time", TIMES)):
        for phrase, basic in phrases.items():
            if re.search(rf"\b{phrase}\b", rest):
                assert circumstances[role] is None, text
                circumstances[role], rest = basic, re.sub(rf"\b{phrase}\b", " ", rest)
    tokens = rest.split()
    heads = [i for i, token in enumerate(tokens) if token in HEADS]
    assert len(heads) in (1, 2), text
    participants = []
    for previous, head in zip([-1, *heads], heads, strict=False):
        before = tokens[max(previous + 1, head - 2) : head]
        head_word, plural = HEADS[tokens[head]]
        if head_word in lexicon.NAMES:
            participants.append(("", "", head_word, False))
            continue
        adjective = ADJECTIVES.get(before[-1], "")
        determiner = before[-2 if adjective else -1]
        participants.append(({"an": "a"}.get(determiner, determiner), adjective, head_word, plural))
    verbs = [token for token in tokens[heads[0] + 1 :] if token in VERBS]
    passive = "by" in tokens
    agent, patient = (participants[1], participants[0]) if passive else (participants[0], (*participants, None)[1])
    return {**circumstances, "agent": agent, "patient": patient, "verb": VERBS[verbs[0]], "negated": "not" in tokens}


def parse_opinion(text: str) -> bool:
    """Return whether an opinion is positive: its main clause counts, and a negator reverses it."""
    clause = text.lower().rstrip(".")
    if " but " in clause:
        clause = clause.split(" but ")[1]
    elif "although " in clause:
        before, after = clause.split("although ")
        clause = before if before.rstrip().endswith(",") else after.split(", ")[1]
    good = any(re.search(rf"\b{word}\b", clause) for word in lexicon.PRAISE)
    assert good != any(re.search(rf"\b{word}\b", clause) for word in lexicon.BLAME), text
    return good != any(re.search(rf"\b{word}\b", clause) for word in lexicon.NEGATORS)
