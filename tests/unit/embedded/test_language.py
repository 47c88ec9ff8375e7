from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from reader import judged, read

from hyperformer.embedded.language import (
    ACTIONS,
    ADJECTIVES,
    KINDS,
    NAMES,
    NOUNS,
    OPPOSITE_ACTIONS,
    PLACES,
    Event,
    Noun,
    Phrase,
    an_event,
    can_cross,
    can_swap,
    crossed,
    different,
    in_split,
    narrower,
    opinion,
    polar_question,
    question,
    spoiled,
    statement,
    swapped,
    wider,
    with_other,
)

DOG = next(noun for noun in NOUNS if noun.words[0] == "dog")
CHASE = next(verb for verb in ACTIONS if verb.words[0][0] == "chase")
EVENT = Event(
    Phrase(DOG, "", "a", ("old", "aged")), CHASE, Phrase(name="Mia"), ("in the park",), ("at night",), past=True
)


def events(count: int, **rates: float) -> list[tuple[Random, Event]]:
    """Random events, each with the generator that made it."""
    found = []
    for seed in range(count):
        rng = Random(seed)
        found.append((rng, an_event(rng, **rates)))
    return found


def told(event: Event) -> dict[str, object]:
    """What `read` should find in the event's sentence."""

    def part(phrase: Phrase | None) -> tuple[str, str, str, bool] | None:
        if phrase is None or phrase.noun is None:
            return phrase and ("", "", phrase.name, False)
        return phrase.determiner, (phrase.adjective or ("",))[0], phrase.noun.words[0], phrase.plural

    return {
        "agent": part(event.agent),
        "verb": event.verb.words[0][0],
        "patient": part(event.patient),
        "place": event.place and event.place[0],
        "time": event.time and event.time[0],
        "negated": event.negated,
    }


def test_a_statement_says_the_event_and_nothing_else_in_whatever_words() -> None:
    for rng, event in events(400, negated=0.3, state=0.2):
        assert read(statement(rng, event)) == told(event)


def test_a_polar_question_asks_for_the_event_without_its_negation() -> None:
    for rng, event in events(200, negated=0.5):
        assert read(polar_question(rng, event)) == {**told(event), "negated": False}


def test_one_event_is_said_in_several_ways() -> None:
    said = {statement(Random(seed), EVENT) for seed in range(200)}
    assert "An old dog chased Mia in the park at night." in said
    assert "Mia was pursued by an aged hound in the park at night." in said
    assert "In the park, an old dog chased Mia at night." in said
    assert all(read(text) == told(EVENT) for text in said)


@pytest.mark.parametrize(
    ("event", "passive", "expected"),
    [
        (replace(EVENT, past=False), False, "An old dog chases Mia in the park at night."),
        (replace(EVENT, negated=True), False, "An old dog did not chase Mia in the park at night."),
        (replace(EVENT, negated=True, past=False), True, "Mia is not chased by an old dog in the park at night."),
        (
            replace(EVENT, agent=Phrase(DOG, "", "two", plural=True), past=False),
            False,
            "Two dogs chase Mia in the park at night.",
        ),
        (
            replace(EVENT, patient=Phrase(DOG, "", "the", plural=True)),
            True,
            "The dogs were chased by an old dog in the park at night.",
        ),
    ],
)
def test_verbs_agree_with_their_subject(event: Event, passive: bool, expected: str) -> None:
    assert expected in {statement(Random(seed), event, passive=passive) for seed in range(200)}


def test_questions_ask_for_a_role_and_do_not_tell_it() -> None:
    openings = {
        "agent": ("Who ", "By whom "),
        "patient": ("Whom ", "Who ", "What "),
        "place": ("Where ",),
        "time": ("When ",),
    }
    for rng, event in events(100, place=1.0, time=1.0):
        for role, opening in openings.items():
            asked = question(rng, event, role)  # type: ignore[arg-type]
            assert asked.startswith(opening)
            assert asked.endswith("?")
            if role in ("place", "time"):
                assert not any(words in asked for words in getattr(event, role))


def test_every_sentence_belongs_to_exactly_one_split_in_the_shares_of_the_rows() -> None:
    shares = dict.fromkeys(("train", "validation", "test"), 0)
    for rng, event in events(2000):
        text = statement(rng, event)
        found = [split for split in shares if in_split(split, text)]  # type: ignore[arg-type]
        assert len(found) == 1
        shares[found[0]] += 1
    assert shares["train"] == pytest.approx(1000, abs=120)
    assert shares["validation"] == pytest.approx(400, abs=100)
    assert shares["test"] == pytest.approx(600, abs=110)


def test_texts_belong_to_a_split_only_where_all_their_sentences_do() -> None:
    texts = [statement(rng, event) for rng, event in events(60)]
    train = [text for text in texts if in_split("train", text)]
    other = next(text for text in texts if in_split("test", text))
    assert in_split("train", " ".join(train), *train)
    assert not in_split("train", " ".join([*train, other]))
    assert not in_split("train", train[0], other)
    assert in_split("test", other.upper())


def test_no_word_stands_for_two_concepts() -> None:
    nouns = [word for noun in [*NOUNS, *KINDS.values()] for word in noun.words]
    forms = [{form for forms in verb.words for form in forms} for verb in ACTIONS]
    assert len(nouns) == len(set(nouns))
    assert len(set.union(*forms)) == sum(map(len, forms))


def test_opposites_are_mutual() -> None:
    assert all(OPPOSITE_ACTIONS[other] == verb != other for verb, other in OPPOSITE_ACTIONS.items())


def test_participants_of_an_event_differ() -> None:
    for _, event in events(300, state=0.2):
        if event.patient:
            assert (event.agent.noun, event.agent.name) != (event.patient.noun, event.patient.name)


def test_swapping_exchanges_who_does_and_who_suffers() -> None:
    found = swapped(EVENT)
    assert (found.agent, found.patient) == (EVENT.patient, EVENT.agent)
    assert swapped(found) == EVENT


def test_things_do_not_act() -> None:
    apple = next(noun for noun in NOUNS if noun.words[0] == "apple")
    assert not can_swap(replace(EVENT, patient=Phrase(apple)))
    assert not can_swap(replace(EVENT, patient=None))
    assert can_swap(EVENT)


def test_crossing_exchanges_the_adjectives_only() -> None:
    cat = Phrase(next(noun for noun in NOUNS if noun.words[0] == "cat"), "", "the", None)
    event = replace(EVENT, patient=cat)
    assert can_cross(event)
    assert not can_cross(EVENT)  # a name has no adjective
    found = crossed(event)
    assert found == replace(
        event, agent=replace(event.agent, adjective=None), patient=replace(cat, adjective=("old", "aged"))
    )


@pytest.mark.parametrize("role", ["agent", "verb", "patient", "place", "time"])
def test_replacing_one_part_changes_that_part_only(role: str) -> None:
    for rng, event in events(150, place=1.0, time=1.0):
        before, after = told(event), told(with_other(rng, event, role))  # type: ignore[arg-type]
        assert {key for key in before if before[key] != after[key]} == {role}
        if role == "verb":
            assert OPPOSITE_ACTIONS.get(event.verb) != with_other(rng, event, "verb").verb


def test_a_different_event_says_something_else() -> None:
    for rng, event in events(500, negated=0.2):
        other = different(rng, event)
        assert told(other) != told(event)
        assert other.negated == event.negated


def test_a_wider_event_leaves_out_or_names_a_kind() -> None:
    seen = set()
    for rng, event in events(300):
        before, after = told(event), told(wider(rng, event))
        changed = {key for key in before if before[key] != after[key]}
        assert len(changed) <= 1
        for key in changed:
            seen.add(key)
            if key in ("place", "time"):
                assert after[key] is None
            else:
                noun = getattr(event, key).noun
                assert isinstance(noun, Noun)
                assert after[key][2] in (noun.words[0], noun.kind)  # type: ignore[index]
                assert after[key][1] == ""  # type: ignore[index]
    assert seen == {"agent", "patient", "place", "time"}


def test_a_narrower_event_says_more() -> None:
    for rng, event in events(300):
        found = narrower(rng, event)
        full = event.place and event.time and all(p.adjective or p.noun is None for p in (event.agent, event.patient))
        assert (found == event) == bool(full)
        assert found.verb == event.verb
        for part in ("place", "time"):
            assert getattr(event, part) in (None, getattr(found, part))
        for holder in ("agent", "patient"):
            before, after = getattr(event, holder), getattr(found, holder)
            assert before.adjective in (None, after.adjective)
            assert (before.noun, before.name) == (after.noun, after.name)


def test_a_spoiled_statement_has_one_small_fault() -> None:
    faults = 0
    for rng, event in events(1500, negated=0.2, state=0.2):
        text = statement(rng, event)
        found = spoiled(rng, text)
        if found is None:
            continue
        faults += 1
        before, after = text[:-1].lower().replace(",", "").split(), found[:-1].lower().replace(",", "").split()
        assert after != before
        assert found[0].isupper()
        assert found.endswith(".")
        if len(after) == len(before):
            changed = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
            assert len(changed) == 1 or (len(changed) == 2 and changed[1] == changed[0] + 1)
        else:
            longer, shorter = sorted((before, after), key=len, reverse=True)
            assert any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
    assert faults > 1000


def test_an_opinion_says_what_it_should_through_negators_and_contrast() -> None:
    texts = {seed: opinion(Random(seed), bool(seed % 2)) for seed in range(600)}
    assert all(judged(text) == bool(seed % 2) for seed, text in texts.items())
    assert sum("lthough" in text or " but " in text for text in texts.values()) == pytest.approx(240, abs=50)


def test_the_language_has_the_words_that_its_readers_expect() -> None:
    assert all(place[0].split()[0] in ("in", "at", "near", "behind", "under", "on") for place in PLACES)
    assert all(name.isalpha() and name.istitle() for name in NAMES)
    assert len({words[0] for words in ADJECTIVES}) == len(ADJECTIVES)
