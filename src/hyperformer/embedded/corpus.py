"""Text of the embedded language to pretrain its backbone on: documents, and pairs of a prompt and what it asks for.

A row is `source` and `target`; where `target` is empty, the source is a document for span corruption. The pairs are
supervised auxiliary objectives, as in T5's own pretraining (Raffel et al. 2020, section 3.5.3): their relations come
close to those of some tasks, under prompts and words of their own. No task template, no sentence of a validation or
test split, and no answer word as a target stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from hyperformer.embedded.language import (
    ACTIONS,
    ADJECTIVES,
    BLAME,
    COLOURS,
    NAMES,
    NOUNS,
    PRAISE,
    STATES,
    Event,
    Part,
    an_event,
    different,
    having,
    in_split,
    noun_phrase,
    opinion,
    polar_question,
    question,
    sentence,
    spoiled,
    statement,
    with_other,
)
from hyperformer.embedded.suite import ROLES, asked, premise_and_hypothesis, same_but

Pair = tuple[str, str]

ANSWER_WORDS = (
    "acceptable unacceptable positive negative equivalent different duplicate distinct entailment neutral "
    "contradiction other answered unanswered supported yes no 0 1 2 3 4 5"
).split()
CHEER = ["people smile", "guests stay", "everyone cheers"]
GLOOM = ["people frown", "guests leave", "everyone sighs"]
WORDS = sorted(
    {word for noun in NOUNS for word in noun.words}
    | {form for verb in ACTIONS + STATES for forms in verb.words for form in forms}
    | {word for words in ADJECTIVES + COLOURS for word in words}
    | set(PRAISE + BLAME)
)
FOLLOWS = ("therefore", "perhaps", "impossible")


class Plain(Random):
    """Draws nothing: always the first choice, so that an event is said in its plain words and order."""

    def random(self) -> float:
        return 0.999

    def choice(self, options):  # type: ignore[no-untyped-def]
        return options[0]


PLAIN = Plain()


def plainly(event: Event) -> str:
    """The event in its plain words, active, place and time last."""
    return statement(PLAIN, event, passive=False)


def document(rng: Random) -> Pair:
    """Three to five sentences: some told twice, some with an opinion and what comes of it, some about a word."""
    parts: list[str] = []
    while len(parts) < 3:
        kind = rng.random()
        event = an_event(rng, negated=0.2, state=0.2)
        if kind < 0.4:
            parts.append(statement(rng, event))
        elif kind < 0.6:
            parts += [statement(rng, event), statement(rng, event)]
        elif kind < 0.75:
            good = rng.random() < 0.5
            parts += [opinion(rng, good), sentence(rng.choice(CHEER if good else GLOOM))]
        elif kind < 0.9:
            parts += [question(rng, event, asked(rng, event)), statement(rng, event)]
        else:
            parts.append(
                f"{rng.choice(NAMES)} {rng.choice(('writes', 'reads', 'hears'))} the word {rng.choice(ANSWER_WORDS)}."
            )
    return " ".join(parts), ""


def link(rng: Random) -> Pair:
    event = an_event(rng, negated=0.1)
    same = rng.random() < 0.5
    first, second = statement(rng, event), statement(rng, event if same else different(rng, event))
    return f"link: {first} / {second}", "namely" if same else "instead"


def infer(rng: Random) -> Pair:
    relation = rng.randrange(3)
    premise, other = premise_and_hypothesis(rng, relation)
    return f"infer: {statement(rng, premise)} / {statement(rng, other)}", FOLLOWS[relation]


def ask(rng: Random) -> Pair:
    event = an_event(rng, place=0.7, time=0.4)
    role = asked(rng, event)
    other, other_role = event, role
    if rng.random() < 0.5:
        other = different(rng, event)
        if rng.random() < 0.3:
            other, other_role = event, asked(rng, event, role)
    same = role == other_role and same_but(event, other, role)
    first, second = question(rng, event, role), question(rng, other, other_role)
    return f"ask: {first} / {second}", "alike" if same else "besides"


def reply(rng: Random) -> Pair:
    """A question and a statement; the words that answer it, or that nobody knows."""
    event = an_event(rng, place=0.8, time=0.5)
    role = asked(rng, event)
    told = event
    if rng.random() < 0.5:
        told = (
            having(event, **{role: None}) if role in ("place", "time") and rng.random() < 0.5 else different(rng, event)
        )
    found = getattr(told, role) if same_but(event, told, role) else None
    answer = "unknown" if found is None else found[0] if role in ("place", "time") else noun_phrase(PLAIN, found)
    return f"reply: {question(rng, event, role)} / {statement(rng, told)}", answer


def _part(event: Event, part: Part) -> str:
    """The plain word of a part of an event."""
    value = getattr(event, part)
    if part in ("place", "time"):
        return str(value[0])
    if part == "verb":
        return str(value.words[0][0])
    return str(value.noun.words[0] if value.noun else value.name)


def _two(rng: Random) -> tuple[Event, Event, list[Part]]:
    """An event, one that differs from it in any number of parts, and the parts that they have."""
    event = an_event(rng, place=0.9, time=0.9)
    kinds: tuple[Part, ...] = (*ROLES, "verb")
    parts = [part for part in kinds if getattr(event, part)]
    other = event
    for part in rng.sample(parts, rng.randint(0, len(parts))):
        other = with_other(rng, other, part)
    return event, other, parts


def common(rng: Random) -> Pair:
    """Two statements; the plain words of the parts that they share."""
    event, other, parts = _two(rng)
    shared = [_part(event, part) for part in parts if getattr(event, part) == getattr(other, part)]
    return f"common: {statement(rng, event)} / {statement(rng, other)}", ", ".join(shared) or "nothing"


def unlike(rng: Random) -> Pair:
    """Two statements; the plain words of the second's parts that the first has otherwise."""
    event, other, parts = _two(rng)
    changed = [_part(other, part) for part in parts if getattr(event, part) != getattr(other, part)]
    return f"unlike: {statement(rng, event)} / {statement(rng, other)}", ", ".join(changed) or "nothing"


def confirm(rng: Random) -> Pair:
    event = an_event(rng, negated=0.5)
    told = [statement(rng, event), statement(rng, an_event(rng, negated=0.5))]
    rng.shuffle(told)
    return (
        f"confirm: {' '.join(told)} / {polar_question(rng, event)}",
        "denied" if event.negated else "told",
    )


def simplify(rng: Random) -> Pair:
    event = an_event(rng, negated=0.2, state=0.1)
    return f"simply: {statement(rng, event)}", plainly(event)


def turn(rng: Random) -> Pair:
    """A statement; the same in its plain words and in the passive."""
    event = an_event(rng, negated=0.2)
    return f"turn: {statement(rng, event)}", statement(PLAIN, event, passive=True)


def mend(rng: Random) -> Pair | None:
    """A sentence, faulty in half of the rows; the sentence without the fault."""
    text = statement(rng, an_event(rng, negated=0.2, state=0.2))
    faulty = text if rng.random() < 0.5 else spoiled(rng, text)
    return (f"mend: {faulty}", text) if faulty else None


def repeat(rng: Random) -> Pair:
    """Words in no order, to be said again: copying, which all else builds on, is learnt from these first."""
    words = " ".join(rng.choices(WORDS, k=rng.randint(4, 14)))
    return f"repeat: {words}", words


def both(rng: Random) -> Pair:
    """Two lists of words; those of the first that stand in the second too."""
    first = rng.sample(WORDS, rng.randint(3, 8))
    shared = [word for word in first if rng.random() < 0.4]
    second = [*shared, *rng.sample(WORDS, rng.randint(1, 5))]
    rng.shuffle(second)
    return f"both: {' '.join(first)} / {' '.join(second)}", " ".join(
        word for word in first if word in second
    ) or "nothing"


def react(rng: Random) -> Pair:
    good = rng.random() < 0.5
    return f"react: {opinion(rng, good)}", rng.choice(CHEER if good else GLOOM).split()[-1]


Objectives = list[tuple[Callable[[Random], Pair | None], float]]
FIRST: Objectives = [(repeat, 2), (both, 1)]
TELLING: Objectives = [
    (document, 3),
    (repeat, 1),
    (both, 2),
    (simplify, 2),
    (turn, 2),
    (mend, 2),
    (reply, 3),
    (common, 3),
    (unlike, 3),
]
JUDGING: Objectives = [*TELLING, (link, 5), (infer, 7), (ask, 4), (react, 3), (confirm, 1)]
LESSONS: list[tuple[float, Objectives]] = [(0.04, FIRST), (0.55, TELLING), (1.0, JUDGING)]
"""Until which share of the rows, and the objectives with their weights: copying words, then telling what sentences say,
then one word about two sentences. One word tells too little to learn copying and comparing from."""


def corpus(count: int, seed: int) -> Iterator[dict[str, str]]:
    """`count` rows of pretraining text, to be read in order: `LESSONS` follow each other.

    Every sentence in them belongs to the train split. The same arguments give the same rows.
    """
    rng = Random(f"{seed}/corpus")
    for number in range(count):
        objectives = next(lesson for until, lesson in LESSONS if number < until * count)
        makers, shares = zip(*objectives, strict=True)
        (make,) = rng.choices(makers, shares)
        while True:
            pair = make(rng)
            if pair and in_split("train", *_sentences(*pair)):
                break
        yield {"source": pair[0], "target": pair[1]}


def _sentences(source: str, target: str) -> list[str]:
    """The statements and questions of a row, without its prompt word and without targets that are mere phrases."""
    prompt, colon, texts = source.partition(": ")
    return [*(texts.split(" / ") if colon else [prompt]), *([target] if target.endswith(".") else [])]
