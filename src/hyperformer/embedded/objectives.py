"""The objectives of pretraining on the embedded language: how each draws its texts, prompt word and target.

They are supervised auxiliary objectives, as in the pretraining of T5 (Raffel et al. 2020, section 3.5.3). They resemble
some tasks, but have different prompts and targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from random import Random

from hyperformer.embedded.events import Event, Part, change_meaning, change_part, draw_event, replace_parts
from hyperformer.embedded.faults import add_fault
from hyperformer.embedded.lexicon import ACTIONS, ADJECTIVES, BLAME, COLOURS, NAMES, NOUNS, PRAISE, STATES
from hyperformer.embedded.opinions import draw_opinion
from hyperformer.embedded.sentences import (
    format_sentence,
    render_noun_phrase,
    render_polar_question,
    render_question,
    render_statement,
)
from hyperformer.embedded.suite import ROLES, agrees_except, draw_premise_and_hypothesis, draw_role


@dataclass(frozen=True)
class Pair:
    """Texts, the prompt word of the objective, and the target; documents have neither prompt nor target."""

    texts: tuple[str, ...]
    prompt: str = ""
    target: str = ""


ANSWER_WORDS = (
    "acceptable unacceptable positive negative equivalent different duplicate distinct entailment neutral "
    "contradiction other answered unanswered supported yes no 0 1 2 3 4 5"
).split()
CHEER = "smile"
GLOOM = "frown"
VOCABULARY = sorted(
    {word for noun in NOUNS for word in noun.synonyms}
    | {form for verb in ACTIONS + STATES for forms in verb.synonyms for form in forms}
    | {word for synonyms in ADJECTIVES + COLOURS for word in synonyms}
    | set(PRAISE + BLAME)
)
RELATION_WORDS = ("therefore", "perhaps", "impossible")


class PlainRandom(Random):
    """A random generator that always chooses the first option: basic words in the basic order."""

    def random(self) -> float:
        """Return a number close to 1, which declines every optional variation."""
        return 0.999

    def choice(self, options):  # type: ignore[no-untyped-def]
        """Return the first option."""
        return options[0]


PLAIN = PlainRandom()


def render_plainly(event: Event) -> str:
    """Return the event in basic words and active voice, with place and time last."""
    return render_statement(PLAIN, event, passive=False)


def draw_document(rng: Random) -> Pair:
    """Draw three or four sentences.

    They are statements, paraphrases, opinions with reactions, questions with answers, and mentions of a word.
    """
    sentences: list[str] = []
    while len(sentences) < 3:
        kind = rng.random()
        event = draw_event(rng, negated=0.2, state=0.2)
        if kind < 0.4:
            sentences.append(render_statement(rng, event))
        elif kind < 0.6:
            sentences += [render_statement(rng, event), render_statement(rng, event)]
        elif kind < 0.75:
            good = rng.random() < 0.5
            sentences += [draw_opinion(rng, good), format_sentence(f"people {CHEER if good else GLOOM}")]
        elif kind < 0.9:
            sentences += [render_question(rng, event, draw_role(rng, event)), render_statement(rng, event)]
        else:
            sentences.append(
                f"{rng.choice(NAMES)} {rng.choice(('writes', 'reads', 'hears'))} the word {rng.choice(ANSWER_WORDS)}."
            )
    return Pair(tuple(sentences))


def draw_link(rng: Random) -> Pair:
    """Draw two statements; the target says whether they have the same meaning."""
    event = draw_event(rng, negated=0.1)
    same = rng.random() < 0.5
    first, second = render_statement(rng, event), render_statement(rng, event if same else change_meaning(rng, event))
    return Pair((first, second), "link", "namely" if same else "instead")


def draw_inference(rng: Random) -> Pair:
    """Draw one or two premises and a further statement; the target says whether it follows from the premises."""
    relation = rng.randrange(3)
    premise, other = draw_premise_and_hypothesis(rng, relation)
    premises = [render_statement(rng, premise)]
    if rng.random() < 0.3:
        premises.insert(rng.randrange(2), render_statement(rng, draw_event(rng, negated=0.2)))
    return Pair((" ".join(premises), render_statement(rng, other)), "infer", RELATION_WORDS[relation])


def draw_question_pair(rng: Random) -> Pair:
    """Draw two questions; the target says whether they ask the same thing."""
    event = draw_event(rng, place=0.7, time=0.4)
    role = draw_role(rng, event)
    other, other_role = event, role
    if rng.random() < 0.5:
        other = change_meaning(rng, event)
        if rng.random() < 0.3:
            other, other_role = event, draw_role(rng, event, role)
    same = role == other_role and agrees_except(event, other, role)
    first, second = render_question(rng, event, role), render_question(rng, other, other_role)
    return Pair((first, second), "ask", "alike" if same else "besides")


def draw_reply(rng: Random) -> Pair:
    """Draw a question and a statement; the target is the answer, or `unknown`."""
    event = draw_event(rng, place=0.8, time=0.5)
    role = draw_role(rng, event)
    stated = event
    if rng.random() < 0.5:
        stated = (
            replace_parts(event, **{role: None})
            if role in ("place", "time") and rng.random() < 0.5
            else change_meaning(rng, event)
        )
    value = getattr(stated, role) if agrees_except(event, stated, role) else None
    answer = "unknown" if value is None else value[0] if role in ("place", "time") else render_noun_phrase(PLAIN, value)
    return Pair((render_question(rng, event, role), render_statement(rng, stated)), "reply", answer)


def _name_part(event: Event, part: Part) -> str:
    """Return the basic word of a part of an event."""
    value = getattr(event, part)
    if part in ("place", "time"):
        return str(value[0])
    if part == "verb":
        return str(value.synonyms[0][0])
    return str(value.noun.synonyms[0] if value.noun else value.name)


def _draw_two_events(rng: Random) -> tuple[Event, Event, list[Part]]:
    """Draw two events that differ in any number of parts; return both, and the names of all their parts."""
    event = draw_event(rng, place=0.9, time=0.9)
    kinds: tuple[Part, ...] = (*ROLES, "verb")
    parts = [part for part in kinds if getattr(event, part)]
    other = event
    for part in rng.sample(parts, rng.randint(0, len(parts))):
        other = change_part(rng, other, part)
    return event, other, parts


def draw_common_parts(rng: Random) -> Pair:
    """Draw two statements; the target is the basic words of their common parts, or `nothing`."""
    event, other, parts = _draw_two_events(rng)
    shared = [_name_part(event, part) for part in parts if getattr(event, part) == getattr(other, part)]
    return Pair((render_statement(rng, event), render_statement(rng, other)), "common", ", ".join(shared) or "nothing")


def draw_changed_parts(rng: Random) -> Pair:
    """Draw two statements; the target is the changed parts of the second one, in basic words.

    If no part has changed, the target is `nothing`.
    """
    event, other, parts = _draw_two_events(rng)
    changed = [_name_part(other, part) for part in parts if getattr(event, part) != getattr(other, part)]
    return Pair((render_statement(rng, event), render_statement(rng, other)), "unlike", ", ".join(changed) or "nothing")


def draw_confirmation(rng: Random) -> Pair:
    """Draw two statements and a yes-no question; the target says whether the answer is yes or no."""
    event = draw_event(rng, negated=0.5)
    statements = [render_statement(rng, event), render_statement(rng, draw_event(rng, negated=0.5))]
    rng.shuffle(statements)
    return Pair(
        (" ".join(statements), render_polar_question(rng, event)), "confirm", "denied" if event.negated else "told"
    )


def draw_simplification(rng: Random) -> Pair:
    """Draw a statement; the target is the same statement in basic words and active voice."""
    event = draw_event(rng, negated=0.2, state=0.1)
    return Pair((render_statement(rng, event),), "simply", render_plainly(event))


def draw_passive(rng: Random) -> Pair:
    """Draw a statement; the target is the same statement in basic words and passive voice."""
    event = draw_event(rng, negated=0.2)
    return Pair((render_statement(rng, event),), "turn", render_statement(PLAIN, event, passive=True))


def _draw_maybe_faulty(rng: Random) -> tuple[str, str | None]:
    """Draw a sentence; return it and, with probability 0.5 each, the same sentence or a faulty copy.

    The faulty copy is None if the sentence does not allow the random fault.
    """
    text = render_statement(rng, draw_event(rng, negated=0.2, state=0.2))
    return text, text if rng.random() < 0.5 else add_fault(rng, text)


def draw_correction(rng: Random) -> Pair | None:
    """Draw a correct or a faulty sentence; the target is the correct sentence.

    Return None if the random fault does not fit the sentence.
    """
    text, faulty = _draw_maybe_faulty(rng)
    return Pair((faulty,), "mend", text) if faulty else None


def draw_fault(rng: Random) -> Pair | None:
    """Draw a correct or a faulty sentence; the target is its first wrong word.

    The target is `nothing` for a correct sentence, and `end` if only the last word is missing. Return None if the
    random fault does not fit the sentence.
    """
    text, faulty = _draw_maybe_faulty(rng)
    if not faulty:
        return None
    expected, actual = (sentence[:-1].lower().split() for sentence in (text, faulty))
    wrong = [word for word, other in zip_longest(actual, expected) if word != other]
    return Pair((faulty,), "spot", "nothing" if not wrong else (wrong[0] or "end").strip(","))


def draw_copy(rng: Random) -> Pair:
    """Draw random words; the target is a copy of them. A small model must first learn to copy."""
    text = " ".join(rng.choices(VOCABULARY, k=rng.randint(4, 14)))
    return Pair((text,), "repeat", text)


def draw_shared_words(rng: Random) -> Pair:
    """Draw two lists of words; the target is the words of the first that the second has too, or `nothing`."""
    first = rng.sample(VOCABULARY, rng.randint(3, 8))
    shared = [word for word in first if rng.random() < 0.4]
    second = [*shared, *rng.sample(VOCABULARY, rng.randint(1, 5))]
    rng.shuffle(second)
    target = " ".join(word for word in first if word in second)
    return Pair((" ".join(first), " ".join(second)), "both", target or "nothing")


def draw_reaction(rng: Random) -> Pair:
    """Draw an opinion; the target is the reaction to it."""
    good = rng.random() < 0.5
    return Pair((draw_opinion(rng, good),), "react", CHEER if good else GLOOM)
