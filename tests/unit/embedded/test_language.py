"""Words, events, sentences, opinions and faults; a parser reads the sentences."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from reader import parse, parse_opinion

from hyperformer.embedded.events import (
    Event,
    Phrase,
    can_swap,
    can_swap_adjectives,
    change_meaning,
    change_part,
    draw_event,
    generalize,
    specialize,
    swap_adjectives,
    swap_participants,
)
from hyperformer.embedded.faults import add_fault
from hyperformer.embedded.lexicon import ACTIONS, ADJECTIVES, KINDS, NAMES, NOUNS, OPPOSITE_ACTIONS, PLACES, Noun
from hyperformer.embedded.opinions import draw_opinion
from hyperformer.embedded.sentences import is_in_split, render_polar_question, render_question, render_statement

DOG = next(noun for noun in NOUNS if noun.synonyms[0] == "dog")
CHASE = next(verb for verb in ACTIONS if verb.synonyms[0][0] == "chase")
EVENT = Event(
    Phrase(DOG, "", "a", ("old", "aged")), CHASE, Phrase(name="Mia"), ("in the park",), ("at night",), past=True
)


def draw_events(count: int, **probabilities: float) -> list[tuple[Random, Event]]:
    """Draw events, each with its generator."""
    drawn = []
    for seed in range(count):
        rng = Random(seed)
        drawn.append((rng, draw_event(rng, **probabilities)))
    return drawn


def meaning_of(event: Event) -> dict[str, object]:
    """Return what `parse` should return for the event's sentence."""

    def part(phrase: Phrase | None) -> tuple[str, str, str, bool] | None:
        if phrase is None or phrase.noun is None:
            return phrase and ("", "", phrase.name, False)
        return phrase.determiner, (phrase.adjective or ("",))[0], phrase.noun.synonyms[0], phrase.plural

    return {
        "agent": part(event.agent),
        "verb": event.verb.synonyms[0][0],
        "patient": part(event.patient),
        "place": event.place and event.place[0],
        "time": event.time and event.time[0],
        "negated": event.negated,
    }


def test_a_statement_expresses_exactly_its_event() -> None:
    for rng, event in draw_events(400, negated=0.3, state=0.2):
        assert parse(render_statement(rng, event)) == meaning_of(event)


def test_a_polar_question_asks_for_the_event_without_its_negation() -> None:
    for rng, event in draw_events(200, negated=0.5):
        assert parse(render_polar_question(rng, event)) == {**meaning_of(event), "negated": False}


def test_an_event_has_several_statements() -> None:
    texts = {render_statement(Random(seed), EVENT) for seed in range(200)}
    assert "An old dog chased Mia in the park at night." in texts
    assert "Mia was pursued by an aged hound in the park at night." in texts
    assert "In the park, an old dog chased Mia at night." in texts
    assert all(parse(text) == meaning_of(EVENT) for text in texts)


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
    assert expected in {render_statement(Random(seed), event, passive=passive) for seed in range(200)}


def test_questions_ask_for_a_role_and_do_not_name_it() -> None:
    openings = {
        "agent": ("Who ", "By whom "),
        "patient": ("Whom ", "Who ", "What "),
        "place": ("Where ",),
        "time": ("When ",),
    }
    for rng, event in draw_events(100, place=1.0, time=1.0):
        for role, opening in openings.items():
            text = render_question(rng, event, role)  # type: ignore[arg-type]
            assert text.startswith(opening)
            assert text.endswith("?")
            if role in ("place", "time"):
                assert not any(synonym in text for synonym in getattr(event, role))


def test_every_sentence_belongs_to_exactly_one_split_in_the_shares_of_the_rows() -> None:
    shares = dict.fromkeys(("train", "validation", "test"), 0)
    for rng, event in draw_events(2000):
        text = render_statement(rng, event)
        splits = [split for split in shares if is_in_split(split, text)]  # type: ignore[arg-type]
        assert len(splits) == 1
        shares[splits[0]] += 1
    assert shares["train"] == pytest.approx(1000, abs=120)
    assert shares["validation"] == pytest.approx(400, abs=100)
    assert shares["test"] == pytest.approx(600, abs=110)


def test_texts_belong_to_a_split_only_where_all_their_sentences_do() -> None:
    texts = [render_statement(rng, event) for rng, event in draw_events(60)]
    train = [text for text in texts if is_in_split("train", text)]
    other = next(text for text in texts if is_in_split("test", text))
    assert is_in_split("train", " ".join(train), *train)
    assert not is_in_split("train", " ".join([*train, other]))
    assert not is_in_split("train", train[0], other)
    assert is_in_split("test", other.upper())


def test_no_word_has_two_concepts() -> None:
    nouns = [word for noun in [*NOUNS, *KINDS.values()] for word in noun.synonyms]
    forms = [{form for forms in verb.synonyms for form in forms} for verb in ACTIONS]
    assert len(nouns) == len(set(nouns))
    assert len(set.union(*forms)) == sum(map(len, forms))


def test_opposites_are_mutual() -> None:
    assert all(OPPOSITE_ACTIONS[other] == verb != other for verb, other in OPPOSITE_ACTIONS.items())


def test_participants_of_an_event_differ() -> None:
    for _, event in draw_events(300, state=0.2):
        if event.patient:
            assert (event.agent.noun, event.agent.name) != (event.patient.noun, event.patient.name)


def test_swapping_exchanges_agent_and_patient() -> None:
    swapped = swap_participants(EVENT)
    assert (swapped.agent, swapped.patient) == (EVENT.patient, EVENT.agent)
    assert swap_participants(swapped) == EVENT


def test_things_do_not_act() -> None:
    apple = next(noun for noun in NOUNS if noun.synonyms[0] == "apple")
    assert not can_swap(replace(EVENT, patient=Phrase(apple)))
    assert not can_swap(replace(EVENT, patient=None))
    assert can_swap(EVENT)


def test_swapping_adjectives_changes_nothing_else() -> None:
    cat = Phrase(next(noun for noun in NOUNS if noun.synonyms[0] == "cat"), "", "the", None)
    event = replace(EVENT, patient=cat)
    assert can_swap_adjectives(event)
    assert not can_swap_adjectives(EVENT)  # a name has no adjective
    swapped = swap_adjectives(event)
    assert swapped == replace(
        event, agent=replace(event.agent, adjective=None), patient=replace(cat, adjective=("old", "aged"))
    )


@pytest.mark.parametrize("role", ["agent", "verb", "patient", "place", "time"])
def test_replacing_one_part_changes_that_part_only(role: str) -> None:
    for rng, event in draw_events(150, place=1.0, time=1.0):
        before, after = meaning_of(event), meaning_of(change_part(rng, event, role))  # type: ignore[arg-type]
        assert {key for key in before if before[key] != after[key]} == {role}
        if role == "verb":
            assert OPPOSITE_ACTIONS.get(event.verb) != change_part(rng, event, "verb").verb


def test_a_changed_event_has_another_meaning() -> None:
    for rng, event in draw_events(500, negated=0.2):
        other = change_meaning(rng, event)
        assert meaning_of(other) != meaning_of(event)
        assert other.negated == event.negated


def test_a_generalized_event_leaves_out_a_part_or_names_a_kind() -> None:
    seen = set()
    for rng, event in draw_events(300):
        before, after = meaning_of(event), meaning_of(generalize(rng, event))
        changed = {key for key in before if before[key] != after[key]}
        assert len(changed) <= 1
        for key in changed:
            seen.add(key)
            if key in ("place", "time"):
                assert after[key] is None
            else:
                noun = getattr(event, key).noun
                assert isinstance(noun, Noun)
                assert after[key][2] in (noun.synonyms[0], noun.kind)  # type: ignore[index]
                assert after[key][1] == ""  # type: ignore[index]
    assert seen == {"agent", "patient", "place", "time"}


def test_a_specialized_event_adds_a_part() -> None:
    for rng, event in draw_events(300):
        special = specialize(rng, event)
        full = event.place and event.time and all(p.adjective or p.noun is None for p in (event.agent, event.patient))
        assert (special == event) == bool(full)
        assert special.verb == event.verb
        for part in ("place", "time"):
            assert getattr(event, part) in (None, getattr(special, part))
        for holder in ("agent", "patient"):
            before, after = getattr(event, holder), getattr(special, holder)
            assert before.adjective in (None, after.adjective)
            assert (before.noun, before.name) == (after.noun, after.name)


def test_a_faulty_statement_has_a_single_small_fault() -> None:
    faults = 0
    for rng, event in draw_events(1500, negated=0.2, state=0.2):
        text = render_statement(rng, event)
        faulty = add_fault(rng, text)
        if faulty is None:
            continue
        faults += 1
        before, after = text[:-1].lower().replace(",", "").split(), faulty[:-1].lower().replace(",", "").split()
        assert after != before
        assert faulty[0].isupper()
        assert faulty.endswith(".")
        if len(after) == len(before):
            changed = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
            assert len(changed) == 1 or (len(changed) == 2 and changed[1] == changed[0] + 1)
        else:
            longer, shorter = sorted((before, after), key=len, reverse=True)
            assert any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
    assert faults > 1000


def test_an_opinion_has_its_polarity_despite_negators_and_concessions() -> None:
    texts = {seed: draw_opinion(Random(seed), bool(seed % 2)) for seed in range(600)}
    assert all(parse_opinion(text) == bool(seed % 2) for seed, text in texts.items())
    assert sum("lthough" in text or " but " in text for text in texts.values()) == pytest.approx(240, abs=50)


def test_the_language_has_the_words_that_its_readers_expect() -> None:
    assert all(place[0].split()[0] in ("in", "at", "near", "behind", "under", "on") for place in PLACES)
    assert all(name.isalpha() and name.istitle() for name in NAMES)
    assert len({synonyms[0] for synonyms in ADJECTIVES}) == len(ADJECTIVES)
