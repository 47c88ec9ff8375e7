"""The grammar: statements and questions that express events with random voice, synonyms and order."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from random import Random

from hyperformer.core.types import Split
from hyperformer.embedded.events import Event, Phrase, Role
from hyperformer.embedded.lexicon import Synonyms, pluralize

SPLIT_BUCKETS: dict[Split, range] = {"train": range(0, 5), "validation": range(5, 7), "test": range(7, 10)}
SYNONYM_PROBABILITY = 0.4  # probability of a synonym in place of the basic word of a concept


def is_in_split(split: Split, *texts: str) -> bool:
    """Return whether every sentence of `texts` belongs to `split`, which a checksum of the sentence determines."""
    sentences = (sentence for text in texts for sentence in re.split(r"(?<=[.?]) ", text))
    return all(zlib.crc32(sentence.lower().encode()) % 10 in SPLIT_BUCKETS[split] for sentence in sentences)


def choose_synonym(rng: Random, synonyms: Synonyms) -> str:
    """Return the basic word of a concept, or another of its synonyms with probability `SYNONYM_PROBABILITY`."""
    return rng.choice(synonyms[1:]) if len(synonyms) > 1 and rng.random() < SYNONYM_PROBABILITY else synonyms[0]


def render_noun_phrase(rng: Random, phrase: Phrase) -> str:
    """Return a participant as text."""
    if phrase.noun is None:
        return phrase.name
    noun = choose_synonym(rng, phrase.noun.synonyms)
    tokens = [pluralize(noun) if phrase.plural else noun]
    if phrase.adjective:
        tokens.insert(0, choose_synonym(rng, phrase.adjective))
    determiner = "an" if phrase.determiner == "a" and tokens[0][0] in "aeiou" else phrase.determiner
    return " ".join([determiner, *tokens])


def _inflect(event: Event, subject: Phrase, passive: bool, forms: tuple[str, str, str, str]) -> tuple[str, str]:
    """Return (auxiliary, rest of the verb) of a clause; the auxiliary of a positive active clause is empty."""
    base, third, past, participle = forms
    negation = "not " if event.negated else ""
    if passive:
        be = ("were" if event.past else "are") if subject.plural else ("was" if event.past else "is")
        return be, negation + participle
    if event.negated:
        return ("did" if event.past else "do" if subject.plural else "does"), negation + base
    return "", past if event.past else base if subject.plural else third


def format_sentence(text: str, mark: str = ".") -> str:
    """Return the text with a capital first letter and a final mark."""
    return text[0].upper() + text[1:] + mark


def _render_circumstances(rng: Random, event: Event, without: Role | None = None) -> list[str]:
    place = choose_synonym(rng, event.place) if event.place and without != "place" else ""
    time = choose_synonym(rng, event.time) if event.time and without != "time" else ""
    return [phrase for phrase in (place, time) if phrase]


def render_clause(rng: Random, event: Event, passive: bool) -> tuple[str, str, str]:
    """Return the (subject, auxiliary, predicate) of a clause about an event, without place and time.

    The clause is active if the event has no patient.
    """
    forms = rng.choice(event.verb.synonyms) if rng.random() < 2 * SYNONYM_PROBABILITY else event.verb.synonyms[0]
    if passive and event.patient:
        auxiliary, verb = _inflect(event, event.patient, True, forms)
        return render_noun_phrase(rng, event.patient), auxiliary, f"{verb} by {render_noun_phrase(rng, event.agent)}"
    auxiliary, verb = _inflect(event, event.agent, False, forms)
    return (
        render_noun_phrase(rng, event.agent),
        auxiliary,
        f"{verb} {render_noun_phrase(rng, event.patient)}" if event.patient else verb,
    )


def render_statement(rng: Random, event: Event, passive: bool | None = None) -> str:
    """Return the event as a sentence with random synonyms and order; if `passive` is None, the voice is random too."""
    subject, auxiliary, predicate = render_clause(rng, event, rng.random() < 0.4 if passive is None else passive)
    around = _render_circumstances(rng, event)
    front = around.pop(0) + "," if around and rng.random() < 0.3 else ""
    return format_sentence(" ".join(word for word in (front, subject, auxiliary, predicate, *around) if word))


def render_question(rng: Random, event: Event, role: Role) -> str:
    """Return a question whose answer is `role` of the event."""
    passive = event.patient is not None and rng.random() < 0.4
    forms = rng.choice(event.verb.synonyms)
    around = _render_circumstances(rng, event, without=role)
    thing = "what" if event.patient and event.patient.noun and not event.patient.noun.animate else "whom"
    singular = replace(event, negated=False)
    if role == "agent" and not passive:
        auxiliary, verb = _inflect(singular, Phrase(name="who"), False, forms)
        tokens = ["who", verb, render_noun_phrase(rng, event.patient) if event.patient else ""]
    elif role == "patient" and passive:
        auxiliary, verb = _inflect(singular, Phrase(name="who"), True, forms)
        tokens = ["what" if thing == "what" else "who", auxiliary, verb, "by", render_noun_phrase(rng, event.agent)]
    else:
        opening = {"agent": "by whom", "patient": thing, "place": "where", "time": "when"}[role]
        subject = event.patient if passive and event.patient else event.agent
        if passive:
            auxiliary, verb = _inflect(singular, subject, True, forms)
            by = [] if role == "agent" else ["by", render_noun_phrase(rng, event.agent)]
            tokens = [opening, auxiliary, render_noun_phrase(rng, subject), verb, *by]
        else:
            auxiliary = "did" if event.past else "do" if subject.plural else "does"
            tokens = [opening, auxiliary, render_noun_phrase(rng, subject), forms[0]]
            if role != "patient" and event.patient:
                tokens.append(render_noun_phrase(rng, event.patient))
    return format_sentence(" ".join(word for word in (*tokens, *around) if word), "?")


def render_polar_question(rng: Random, event: Event) -> str:
    """Return a yes-no question about the event; the answer is yes if the event is not negated."""
    subject, auxiliary, predicate = render_clause(rng, replace(event, negated=False), passive=True)
    if not event.patient:
        auxiliary = "did" if event.past else "do" if event.agent.plural else "does"
        predicate = rng.choice(event.verb.synonyms)[0]
    return format_sentence(" ".join([auxiliary, subject, predicate, *_render_circumstances(rng, event)]), "?")
