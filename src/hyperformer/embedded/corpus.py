"""Text of the embedded language to pretrain its backbone on: documents, and pairs of a prompt and what it asks for.

A row is `source` and `target`; where `target` is empty, the source is a document for span corruption. The pairs are
supervised auxiliary objectives, as in T5's own pretraining (Raffel et al. 2020, section 3.5.3): their relations come
close to those of some tasks, under prompts and words of their own. Invented words with a colon stand before many texts,
so that the backbone takes the field names of a template, which it has never seen, for what they are. No task template,
no sentence of a validation or test split, and no answer word as a target stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random
from string import ascii_lowercase

from hyperformer import plaintext
from hyperformer.config import PretrainingSettings
from hyperformer.data import Rows, gathered, training_texts
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
from hyperformer.progress import watched
from hyperformer.tasks import Task


@dataclass(frozen=True)
class Pair:
    """Texts, the word that says what is asked of them, and what it asks for; documents have neither."""

    texts: tuple[str, ...]
    prompt: str = ""
    target: str = ""


ANSWER_WORDS = (
    "acceptable unacceptable positive negative equivalent different duplicate distinct entailment neutral "
    "contradiction other answered unanswered supported yes no 0 1 2 3 4 5"
).split()
CHEER, GLOOM = "smile", "frown"
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
            parts += [opinion(rng, good), sentence(f"people {CHEER if good else GLOOM}")]
        elif kind < 0.9:
            parts += [question(rng, event, asked(rng, event)), statement(rng, event)]
        else:
            parts.append(
                f"{rng.choice(NAMES)} {rng.choice(('writes', 'reads', 'hears'))} the word {rng.choice(ANSWER_WORDS)}."
            )
    return Pair(tuple(parts))


def link(rng: Random) -> Pair:
    event = an_event(rng, negated=0.1)
    same = rng.random() < 0.5
    first, second = statement(rng, event), statement(rng, event if same else different(rng, event))
    return Pair((first, second), "link", "namely" if same else "instead")


def infer(rng: Random) -> Pair:
    """One statement or two, and another; whether it follows from them."""
    relation = rng.randrange(3)
    premise, other = premise_and_hypothesis(rng, relation)
    told = [statement(rng, premise)]
    if rng.random() < 0.3:
        told.insert(rng.randrange(2), statement(rng, an_event(rng, negated=0.2)))
    return Pair((" ".join(told), statement(rng, other)), "infer", FOLLOWS[relation])


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
    return Pair((first, second), "ask", "alike" if same else "besides")


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
    return Pair((question(rng, event, role), statement(rng, told)), "reply", answer)


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
    return Pair((statement(rng, event), statement(rng, other)), "common", ", ".join(shared) or "nothing")


def unlike(rng: Random) -> Pair:
    """Two statements; the plain words of the second's parts that the first has otherwise."""
    event, other, parts = _two(rng)
    changed = [_part(other, part) for part in parts if getattr(event, part) != getattr(other, part)]
    return Pair((statement(rng, event), statement(rng, other)), "unlike", ", ".join(changed) or "nothing")


def confirm(rng: Random) -> Pair:
    event = an_event(rng, negated=0.5)
    told = [statement(rng, event), statement(rng, an_event(rng, negated=0.5))]
    rng.shuffle(told)
    return Pair((" ".join(told), polar_question(rng, event)), "confirm", "denied" if event.negated else "told")


def simplify(rng: Random) -> Pair:
    event = an_event(rng, negated=0.2, state=0.1)
    return Pair((statement(rng, event),), "simply", plainly(event))


def turn(rng: Random) -> Pair:
    """A statement; the same in its plain words and in the passive."""
    event = an_event(rng, negated=0.2)
    return Pair((statement(rng, event),), "turn", statement(PLAIN, event, passive=True))


def _maybe_faulty(rng: Random) -> tuple[str, str | None]:
    """A sentence, and the same with a fault in half of the cases; None where the fault does not fit."""
    text = statement(rng, an_event(rng, negated=0.2, state=0.2))
    return text, text if rng.random() < 0.5 else spoiled(rng, text)


def mend(rng: Random) -> Pair | None:
    """A sentence, faulty in half of the rows; the sentence without the fault."""
    text, faulty = _maybe_faulty(rng)
    return Pair((faulty,), "mend", text) if faulty else None


def spot(rng: Random) -> Pair | None:
    """A sentence, faulty in half of the rows; the first word that is not as it should be."""
    text, faulty = _maybe_faulty(rng)
    if not faulty:
        return None
    right, found = (words[:-1].lower().split() for words in (text, faulty))
    odd = [word for word, other in zip_longest(found, right) if word != other]
    return Pair((faulty,), "spot", "nothing" if not odd else (odd[0] or "end").strip(","))


def repeat(rng: Random) -> Pair:
    """Words in no order, to be said again: copying, which all else builds on, is learnt from these first."""
    words = " ".join(rng.choices(WORDS, k=rng.randint(4, 14)))
    return Pair((words,), "repeat", words)


def both(rng: Random) -> Pair:
    """Two lists of words; those of the first that stand in the second too."""
    first = rng.sample(WORDS, rng.randint(3, 8))
    shared = [word for word in first if rng.random() < 0.4]
    second = [*shared, *rng.sample(WORDS, rng.randint(1, 5))]
    rng.shuffle(second)
    target = " ".join(word for word in first if word in second)
    return Pair((" ".join(first), " ".join(second)), "both", target or "nothing")


def react(rng: Random) -> Pair:
    good = rng.random() < 0.5
    return Pair((opinion(rng, good),), "react", CHEER if good else GLOOM)


Objectives = list[tuple[Callable[[Random], Pair | None], float]]
FIRST: Objectives = [(repeat, 2), (both, 1)]
TELLING: Objectives = [
    (document, 3),
    (repeat, 1),
    (both, 2),
    (simplify, 2),
    (turn, 2),
    (mend, 2),
    (spot, 3),
    (reply, 4),
    (common, 3),
    (unlike, 3),
]
JUDGING: Objectives = [*TELLING, (link, 5), (infer, 8), (ask, 4), (reply, 3), (spot, 3), (react, 3), (confirm, 1)]
LESSONS: list[tuple[float, Objectives]] = [(0.04, FIRST), (0.5, TELLING), (1.0, JUDGING)]
"""Until which share of the rows, and the objectives with their weights: copying words, then telling what sentences say,
then one word about two sentences. One word tells too little to learn copying and comparing from."""


def pairs(count: int, seed: int) -> Iterator[Pair]:
    """`count` pairs and documents in order: `LESSONS` follow each other.

    Every sentence in them belongs to the train split. The same arguments give the same ones.
    """
    rng = Random(f"{seed}/corpus")
    for number in range(count):
        objectives = next(lesson for until, lesson in LESSONS if number < until * count)
        makers, shares = zip(*objectives, strict=True)
        (make,) = rng.choices(makers, shares)
        while True:
            pair = make(rng)
            if pair and in_split("train", *pair.texts, *([pair.target] if pair.target.endswith(".") else [])):
                break
        yield pair


def pretraining_rows(settings: PretrainingSettings, tasks: Mapping[str, Task], rows: Path, seed: int) -> Rows:
    """Return pretraining rows: of `settings.text_file` and the tasks' training texts, or of the embedded language's
    `corpus` where it is None.

    Args:
        rows: the folder of checked rows.
    """
    if settings.text_file:
        extra = training_texts(rows, tasks)
        made = plaintext.rows(settings.text_file, extra, settings.rows, settings.max_tokens // 2, seed)
    else:
        made = corpus(settings.rows, seed)
    return gathered(watched(made, "making pretraining rows", settings.rows))


def corpus(count: int, seed: int) -> Iterator[dict[str, str]]:
    """`count` rows of pretraining text, to be read in order: `pairs`, each laid out in one of several ways."""
    rng = Random(f"{seed}/layout")
    for pair in pairs(count, seed):
        yield {"source": laid_out(rng, pair), "target": pair.target}


def laid_out(rng: Random, pair: Pair) -> str:
    """The pair's source: the texts between slashes or, in half of the cases, each after an invented field name."""
    if rng.random() < 0.5:
        return f"{pair.prompt}: {' / '.join(pair.texts)}" if pair.prompt else " ".join(pair.texts)
    names = [_invented(rng) for _ in pair.texts]
    if rng.random() < 0.5:
        names = [f"{names[0]}{number}" for number in range(1, 1 + len(names))]
    return " ".join([pair.prompt, *(f"{name}: {text}" for name, text in zip(names, pair.texts, strict=True))]).lstrip()


def _invented(rng: Random) -> str:
    return "".join(rng.choices(ascii_lowercase, k=rng.randint(3, 9)))
