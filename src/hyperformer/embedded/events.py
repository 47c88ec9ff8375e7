"""Events, the meanings of statements: how they are drawn, changed, generalized and specialized.

In tasks with two texts, the label is a relation between events, never between words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, TypeVar

from hyperformer.embedded.lexicon import (
    ACTIONS,
    ADJECTIVES,
    ANIMATE,
    COLOURS,
    KINDS,
    NAMES,
    NOUNS,
    OPPOSITE_ACTIONS,
    PLACES,
    STATES,
    TIMES,
    Noun,
    Synonyms,
    Verb,
)

Role = Literal["agent", "patient", "place", "time"]
Part = Literal["agent", "verb", "patient", "place", "time", "adjective"]
T = TypeVar("T")


@dataclass(frozen=True)
class Phrase:
    """A participant in an event: a name, or a noun with a determiner and at most one adjective."""

    noun: Noun | None = None
    name: str = ""
    determiner: str = "the"
    adjective: Synonyms | None = None
    plural: bool = False


@dataclass(frozen=True)
class Event:
    """The meaning of a statement; `patient` is None if the verb has no patient."""

    agent: Phrase
    verb: Verb
    patient: Phrase | None
    place: Synonyms | None = None
    time: Synonyms | None = None
    past: bool = False
    negated: bool = False


def replace_parts(event: Event, **parts: Any) -> Event:
    """Return the event with some parts replaced.

    The names of the parts may be variables, which type checkers reject in a call of `dataclasses.replace`.
    """
    return replace(event, **parts)


def draw_phrase(rng: Random, nouns: list[Noun], adjective_probability: float = 0.5, names: bool = True) -> Phrase:
    """Draw a participant: one of `nouns` or, with probability 0.2 if `names` is true, one of `NAMES`."""
    if names and rng.random() < 0.2:
        return Phrase(name=rng.choice(NAMES))
    plural = rng.random() < 0.3
    determiner = rng.choice(("the", "some", "two")) if plural else rng.choice(("the", "a"))
    adjective = rng.choice(ADJECTIVES + COLOURS) if rng.random() < adjective_probability else None
    return Phrase(rng.choice(nouns), "", determiner, adjective, plural)


def draw_event(
    rng: Random, *, place: float = 0.6, time: float = 0.3, negated: float = 0.0, state: float = 0.0
) -> Event:
    """Draw an event.

    Args:
        rng: random generator.
        place: probability of a place.
        time: probability of a time.
        negated: probability of a negation.
        state: probability of a verb without a patient.
    """
    agent = draw_phrase(rng, ANIMATE)
    patient = None
    if rng.random() >= state:
        patient = agent
        while (patient.noun, patient.name) == (agent.noun, agent.name):
            animate = rng.random() < 0.65
            patient = draw_phrase(rng, ANIMATE if animate else NOUNS, names=animate)
    return Event(
        agent,
        rng.choice(ACTIONS if patient else STATES),
        patient,
        rng.choice(PLACES) if rng.random() < place else None,
        rng.choice(TIMES) if rng.random() < time else None,
        rng.random() < 0.5,
        rng.random() < negated,
    )


def _choose_other(rng: Random, options: list[T], current: object) -> T:
    return rng.choice([option for option in options if option != current])


def swap_participants(event: Event) -> Event:
    """Return the event with agent and patient exchanged; the patient must be animate."""
    assert event.patient is not None
    return replace(event, agent=event.patient, patient=event.agent)


def can_swap(event: Event) -> bool:
    """Return whether agent and patient can be exchanged."""
    return event.patient is not None and (event.patient.noun is None or event.patient.noun.animate)


def swap_adjectives(event: Event) -> Event:
    """Return the event with the adjectives of agent and patient exchanged."""
    assert event.patient is not None
    return replace(
        event,
        agent=replace(event.agent, adjective=event.patient.adjective),
        patient=replace(event.patient, adjective=event.agent.adjective),
    )


def can_swap_adjectives(event: Event) -> bool:
    """Return whether agent and patient are nouns with different adjectives."""
    agent, patient = event.agent, event.patient
    return bool(patient and agent.noun and patient.noun and agent.adjective != patient.adjective)


def change_part(rng: Random, event: Event, role: Part) -> Event:
    """Return the event with one part replaced by another; a verb is never replaced by its opposite."""
    if role == "verb":
        verbs = [verb for verb in (ACTIONS if event.patient else STATES) if verb != OPPOSITE_ACTIONS.get(event.verb)]
        return replace(event, verb=_choose_other(rng, verbs, event.verb))
    if role in ("place", "time"):
        return replace_parts(
            event, **{role: _choose_other(rng, PLACES if role == "place" else TIMES, getattr(event, role))}
        )
    holder = "agent" if role == "agent" or (role == "adjective" and event.agent.adjective) else "patient"
    phrase = getattr(event, holder)
    if role == "adjective" and phrase.noun:
        return replace(
            event, **{holder: replace(phrase, adjective=_choose_other(rng, ADJECTIVES + COLOURS, phrase.adjective))}
        )
    if phrase.noun is None:
        names = [name for name in NAMES if name not in [p.name for p in (event.agent, event.patient) if p]]
        return replace_parts(event, **{holder: replace(phrase, name=rng.choice(names))})
    used = [p.noun for p in (event.agent, event.patient) if p]
    pool = [noun for noun in (ANIMATE if phrase.noun.animate else NOUNS) if noun not in used]
    return replace_parts(event, **{holder: replace(phrase, noun=rng.choice(pool))})


def change_meaning(rng: Random, event: Event) -> Event:
    """Return an event with similar words and another meaning: two parts are exchanged, or one part is replaced."""
    kind = rng.random()
    if kind < 0.4 and can_swap(event):
        return swap_participants(event)
    if kind < 0.6 and can_swap_adjectives(event):
        return swap_adjectives(event)
    roles: list[Part] = ["agent", "verb", "patient" if event.patient else "verb"]
    circumstances: tuple[Part, ...] = ("place", "time")
    roles += [role for role in circumstances if getattr(event, role)]
    if event.agent.adjective or (event.patient and event.patient.adjective):
        roles.append("adjective")
    return change_part(rng, event, rng.choice(roles))


def generalize(rng: Random, event: Event) -> Event:
    """Return a more general event, which a positive `event` entails; `event` itself if there is none.

    A place, a time or an adjective is left out, or a noun is replaced by its hypernym.
    """
    options: list[Event] = []
    if event.place:
        options.append(replace(event, place=None))
    if event.time:
        options.append(replace(event, time=None))
    for holder in ("agent", "patient"):
        phrase = getattr(event, holder)
        if phrase and phrase.noun:
            if phrase.adjective:
                options.append(replace_parts(event, **{holder: replace(phrase, adjective=None)}))
            if phrase.noun.kind in KINDS:
                determiner = "some" if phrase.plural else "a"
                kind = replace(phrase, noun=KINDS[phrase.noun.kind], determiner=determiner, adjective=None)
                options.append(replace_parts(event, **{holder: kind}))
    return rng.choice(options) if options else event


def specialize(rng: Random, event: Event) -> Event:
    """Return a more specific event, which `event` does not entail; `event` itself if nothing can be added."""
    options: list[Event] = []
    if not event.place:
        options.append(replace(event, place=rng.choice(PLACES)))
    if not event.time:
        options.append(replace(event, time=rng.choice(TIMES)))
    for holder in ("agent", "patient"):
        phrase = getattr(event, holder)
        if phrase and phrase.noun and not phrase.adjective:
            options.append(
                replace_parts(event, **{holder: replace(phrase, adjective=rng.choice(ADJECTIVES + COLOURS))})
            )
    return rng.choice(options) if options else event
