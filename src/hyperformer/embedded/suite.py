"""The rows of the embedded tasks: eight to train on, of GLUE's shapes, and four to transfer to.

A builder takes the label and draws a row that has it; the rest of a row is drawn in the same way whatever its label is,
so that neither single words nor lengths tell it (sentiment apart, where words are the point).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from datasets import Dataset

from hyperformer.config import DataSettings, EmbeddedSettings, Tasks
from hyperformer.data import EMBEDDED, SPLITS, Writer, write_rows
from hyperformer.embedded.language import (
    OPPOSITE_ACTIONS,
    Event,
    Part,
    Role,
    an_event,
    can_cross,
    can_swap,
    crossed,
    different,
    having,
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
from hyperformer.progress import watched
from hyperformer.types import HyperFormerError, Split

Row = dict[str, str | int | float]
Builder = Callable[[Random, int], Row | None]


def acceptability(rng: Random, label: int) -> Row | None:
    """One sentence; 1 grammatical, 0 with one fault (the shape of CoLA)."""
    text: str | None = statement(rng, an_event(rng, negated=0.2, state=0.2))
    if label == 0:
        text = spoiled(rng, str(text))
    return {"sentence": text, "label": label} if text else None


def sentiment(rng: Random, label: int) -> Row:
    """One opinion; 1 positive, 0 negative, through negators and contrast (the shape of SST-2)."""
    return {"sentence": opinion(rng, bool(label)), "label": label}


def paraphrase(rng: Random, label: int) -> Row:
    """Two statements; 1 where they say the same (the shape of MRPC)."""
    event = an_event(rng, negated=0.1)
    other = event if label else different(rng, event)
    return {"sentence1": statement(rng, event), "sentence2": statement(rng, other), "label": label}


def asked(rng: Random, event: Event, but: Role | None = None) -> Role:
    return rng.choice([role for role in ROLES if getattr(event, role) and role != but])


def same_but(event: Event, other: Event, role: Role) -> bool:
    """Whether the events agree in all that a question about `role` says."""
    return having(event, **{role: None}) == having(other, **{role: None})


def duplicates(rng: Random, label: int) -> Row | None:
    """Two questions; 1 where they ask the same (the shape of QQP)."""
    event = an_event(rng, place=0.7, time=0.4)
    role = asked(rng, event)
    first = question(rng, event, role)
    if label == 0 and rng.random() < 0.3:
        return {"question1": first, "question2": question(rng, event, asked(rng, event, role)), "label": label}
    other = event if label else different(rng, event)
    if label == 0 and same_but(event, other, role):
        return None
    return {"question1": first, "question2": question(rng, other, role), "label": label}


def similarity(rng: Random, label: int) -> Row:
    """Two statements and how many of five parts they share: agent, verb, patient, place, time (the shape of STS-B)."""
    event = an_event(rng, place=1.0, time=1.0)
    other = event
    for role in rng.sample(PARTS, 5 - label):
        other = with_other(rng, other, role)
    return {"sentence1": statement(rng, event), "sentence2": statement(rng, other), "score": float(label)}


def opposed(event: Event) -> Event | None:
    """The event with the opposite verb, which cannot hold along with it; None where the verb has no opposite."""
    verb = OPPOSITE_ACTIONS.get(event.verb)
    return replace(event, verb=verb) if verb else None


def hypothesis(rng: Random, premise: Event, relation: int) -> Event:
    """An event that follows from `premise` (0), that may hold or not (1), or that cannot (2).

    What says less follows from a positive premise; what says more is denied along with a negative one.
    """
    event = replace(premise, negated=False)
    unsaid, implied = (wider, narrower) if premise.negated else (narrower, wider)
    if relation != 1:
        near = event if rng.random() < 0.25 else implied(rng, event)
        contrary = opposed(near)
        if relation == 2 and contrary and not premise.negated and rng.random() < 0.7:
            return contrary
        return replace(near, negated=premise.negated if relation == 0 else not premise.negated)
    kind = rng.random()
    if kind < 0.5:
        near = unsaid(rng, event)
    elif kind < 0.7 and can_swap(event):
        near = swapped(event)
    else:
        near = with_other(rng, event, rng.choice(("agent", "verb", "patient")))
    return replace(near, negated=premise.negated if rng.random() < 0.8 else not premise.negated)


NEGATED_PREMISES = (0.55, 0.45, 0.25)  # by relation: "not" stands in a pair as often whatever the relation is


def premise_and_hypothesis(rng: Random, relation: int) -> tuple[Event, Event]:
    while True:
        premise = an_event(rng, place=0.7, time=0.4, negated=NEGATED_PREMISES[relation])
        other = hypothesis(rng, premise, relation)
        if relation != 1 or replace(other, negated=premise.negated) != premise:
            return premise, other


def inference(rng: Random, label: int) -> Row:
    """Premise and hypothesis: 0 entailment, 1 neutral, 2 contradiction (the shape of MNLI)."""
    premise, other = premise_and_hypothesis(rng, label)
    return {"premise": statement(rng, premise), "hypothesis": statement(rng, other), "label": label}


def answerability(rng: Random, label: int) -> Row | None:
    """Question and sentence: 0 where the sentence holds the answer, 1 where it does not (the shape of QNLI)."""
    event = an_event(rng, place=0.8, time=0.5)
    role = asked(rng, event)
    told = event
    if label == 1:
        told = (
            having(event, **{role: None}) if role in ("place", "time") and rng.random() < 0.5 else different(rng, event)
        )
        if getattr(told, role) and same_but(event, told, role):
            return None
    return {"question": question(rng, event, role), "sentence": statement(rng, told), "label": label}


def entailment(rng: Random, label: int) -> Row:
    """A premise of two sentences and a hypothesis: 0 entailment, 1 not (the shape of RTE)."""
    premise, other = premise_and_hypothesis(rng, 0 if label == 0 else rng.choice((1, 2)))
    both = [statement(rng, premise), statement(rng, an_event(rng, negated=0.2))]
    rng.shuffle(both)
    return {"sentence1": " ".join(both), "sentence2": statement(rng, other), "label": label}


def reviews(rng: Random, label: int) -> Row:
    """Three opinions of one voice; 1 where most are positive (the shape of IMDB and Yelp)."""
    opinions = [opinion(rng, bool(label)), opinion(rng, bool(label)), opinion(rng, rng.random() < 0.5)]
    rng.shuffle(opinions)
    return {"text": " ".join(opinions), "label": label}


def word_order(rng: Random, label: int) -> Row | None:
    """Two statements of nearly the same words; 1 where they say the same (the shape of PAWS)."""
    event = an_event(rng)
    changes = [change for change, fits in ((swapped, can_swap), (crossed, can_cross)) if fits(event)]
    if not changes:
        return None
    other = event if label else rng.choice(changes)(event)
    return {"sentence1": statement(rng, event), "sentence2": statement(rng, other), "label": label}


def yes_no(rng: Random, label: int) -> Row:
    """A passage of three statements and a question: 1 yes, 0 no (the shape of BoolQ)."""
    denied = [
        label == 0,
        rng.random() < 0.5,
        label == 1,
    ]  # the asked one first; one or two of the three, whatever the label
    told = [replace(an_event(rng), negated=negated) for negated in denied]
    passage = [statement(rng, event) for event in told]
    rng.shuffle(passage)
    return {"question": polar_question(rng, told[0]), "passage": " ".join(passage), "label": label}


def support(rng: Random, label: int) -> Row:
    """Premise and hypothesis: `entails` or `neutral` (the shape of SciTail)."""
    return {**inference(rng, 1 - label), "label": ("neutral", "entails")[label]}


@dataclass(frozen=True)
class Recipe:
    """How the rows of a task are made: the builder, how many labels it balances, whether its training set is small."""

    build: Builder
    labels: int = 2
    small: bool = False


ROLES: tuple[Role, ...] = ("agent", "patient", "place", "time")
PARTS: tuple[Part, ...] = ("agent", "verb", "patient", "place", "time")
SUITE = {
    "acceptability": Recipe(acceptability),
    "sentiment": Recipe(sentiment),
    "paraphrase": Recipe(paraphrase),
    "duplicates": Recipe(duplicates),
    "similarity": Recipe(similarity, labels=6),
    "inference": Recipe(inference, labels=3),
    "answerability": Recipe(answerability),
    "entailment": Recipe(entailment, small=True),
    "reviews": Recipe(reviews),
    "word_order": Recipe(word_order),
    "yes_no": Recipe(yes_no),
    "support": Recipe(support),
}


def rows(task: str, split: Split, count: int, seed: int) -> Iterator[Row]:
    """`count` different rows of a task's split, labels in equal shares and random order.

    The same arguments give the same rows. Every sentence of a row belongs to `split` alone (`language.in_split`).
    """
    recipe, rng = SUITE[task], Random(f"{seed}/{task}/{split}")
    labels = [i % recipe.labels for i in range(count)]
    rng.shuffle(labels)
    seen: set[tuple[str, ...]] = set()
    for label in labels:
        while True:
            row = recipe.build(rng, label)
            if row is None:
                continue
            texts = tuple(value for key, value in row.items() if isinstance(value, str) and key != "label")
            if texts not in seen and len(set(texts)) == len(texts) and in_split(split, *texts):
                break
        seen.add(texts)
        yield row


def language_rows(tasks: Tasks, data: DataSettings, settings: EmbeddedSettings, seed: int) -> Writer:
    """What writes the rows of every task whose source is the embedded language, as `<name>/<split>.parquet`.

    Raises:
        HyperFormerError: a task names a part of the suite that does not exist.
    """
    found: dict[str, dict[str, Dataset]] = {}
    for task, described in watched(tasks.root.items(), "making rows", len(tasks.root)):
        name = described.source.name or task
        if (described.source.path or data.source) != EMBEDDED:
            continue
        if name not in SUITE:
            known = ", ".join(SUITE)
            raise HyperFormerError(
                f"task {task!r}: the embedded language has no {name!r}, expected one of {known}; set source"
            )
        train = settings.small_train if SUITE[name].small else settings.train
        counts = {"train": train, "validation": settings.validation, "test": settings.test}
        found[name] = {split: Dataset.from_list(list(rows(name, split, counts[split], seed))) for split in SPLITS}
    return write_rows(found)
