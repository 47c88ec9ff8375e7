"""The rows of the embedded tasks: eight to train on, in the formats of GLUE, and four to transfer to.

A builder draws a row with a given label; it returns None if its random choices do not allow the label, and is then
called again. Single words and lengths say little about the label, except in `sentiment` and `reviews`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from datasets import Dataset

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.progress import track
from hyperformer.core.types import SPLITS, Split
from hyperformer.data.sources import EMBEDDED
from hyperformer.data.storage import Writer, write_rows
from hyperformer.embedded.events import (
    Event,
    Part,
    Role,
    can_swap,
    can_swap_adjectives,
    change_meaning,
    change_part,
    draw_event,
    generalize,
    replace_parts,
    specialize,
    swap_adjectives,
    swap_participants,
)
from hyperformer.embedded.faults import add_fault
from hyperformer.embedded.lexicon import OPPOSITE_ACTIONS
from hyperformer.embedded.opinions import draw_opinion
from hyperformer.embedded.sentences import is_in_split, render_polar_question, render_question, render_statement
from hyperformer.settings import DataSettings, EmbeddedSettings, Tasks

SuiteRow = dict[str, str | int | float]
Builder = Callable[[Random, int], SuiteRow | None]


def draw_acceptability(rng: Random, label: int) -> SuiteRow | None:
    """Draw a sentence; label 1 if it is grammatical, 0 if it has a fault (the format of CoLA)."""
    text: str | None = render_statement(rng, draw_event(rng, negated=0.2, state=0.2))
    if label == 0:
        text = add_fault(rng, str(text))
    return {"sentence": text, "label": label} if text else None


def draw_sentiment(rng: Random, label: int) -> SuiteRow:
    """Draw an opinion; label 1 if it is positive, 0 if it is negative (the format of SST-2)."""
    return {"sentence": draw_opinion(rng, bool(label)), "label": label}


def draw_paraphrase(rng: Random, label: int) -> SuiteRow:
    """Draw two statements; label 1 if they have the same meaning, else 0 (the format of MRPC)."""
    event = draw_event(rng, negated=0.1)
    other = event if label else change_meaning(rng, event)
    return {"sentence1": render_statement(rng, event), "sentence2": render_statement(rng, other), "label": label}


def draw_role(rng: Random, event: Event, excluded: Role | None = None) -> Role:
    """Draw a role that the event has, except `excluded`."""
    return rng.choice([role for role in ROLES if getattr(event, role) and role != excluded])


def agrees_except(event: Event, other: Event, role: Role) -> bool:
    """Return whether the events are equal except for `role`."""
    return replace_parts(event, **{role: None}) == replace_parts(other, **{role: None})


def draw_duplicates(rng: Random, label: int) -> SuiteRow | None:
    """Draw two questions; label 1 if they ask the same thing, else 0 (the format of QQP)."""
    event = draw_event(rng, place=0.7, time=0.4)
    role = draw_role(rng, event)
    first = render_question(rng, event, role)
    if label == 0 and rng.random() < 0.3:
        return {
            "question1": first,
            "question2": render_question(rng, event, draw_role(rng, event, role)),
            "label": label,
        }
    other = event if label else change_meaning(rng, event)
    if label == 0 and agrees_except(event, other, role):
        return None
    return {"question1": first, "question2": render_question(rng, other, role), "label": label}


def draw_similarity(rng: Random, label: int) -> SuiteRow:
    """Draw two statements; the score is the number of `PARTS` that they share, 0 to 5 (the format of STS-B)."""
    event = draw_event(rng, place=1.0, time=1.0)
    other = event
    for role in rng.sample(PARTS, 5 - label):
        other = change_part(rng, other, role)
    return {"sentence1": render_statement(rng, event), "sentence2": render_statement(rng, other), "score": float(label)}


def oppose(event: Event) -> Event | None:
    """Return the event with the opposite verb, which contradicts it, or None if the verb has no opposite."""
    verb = OPPOSITE_ACTIONS.get(event.verb)
    return replace(event, verb=verb) if verb else None


def draw_hypothesis(rng: Random, premise: Event, relation: int) -> Event:
    """Draw an event that `premise` entails (0), is neutral to (1) or contradicts (2).

    A positive premise entails more general events; a negated premise entails the negation of more specific events.
    """
    event = replace(premise, negated=False)
    neutral, entailed = (generalize, specialize) if premise.negated else (specialize, generalize)
    if relation != 1:
        near = event if rng.random() < 0.25 else entailed(rng, event)
        contrary = oppose(near)
        if relation == 2 and contrary and not premise.negated and rng.random() < 0.7:
            return contrary
        return replace(near, negated=premise.negated if relation == 0 else not premise.negated)
    kind = rng.random()
    if kind < 0.5:
        near = neutral(rng, event)
    elif kind < 0.7 and can_swap(event):
        near = swap_participants(event)
    else:
        near = change_part(rng, event, rng.choice(("agent", "verb", "patient")))
    return replace(near, negated=premise.negated if rng.random() < 0.8 else not premise.negated)


NEGATED_PREMISES = (0.55, 0.45, 0.25)  # probability by relation, so that "not" is equally frequent in all relations


def draw_premise_and_hypothesis(rng: Random, relation: int) -> tuple[Event, Event]:
    """Draw two events with this relation: entailment (0), neutral (1) or contradiction (2)."""
    while True:
        premise = draw_event(rng, place=0.7, time=0.4, negated=NEGATED_PREMISES[relation])
        other = draw_hypothesis(rng, premise, relation)
        if relation != 1 or replace(other, negated=premise.negated) != premise:
            return premise, other


def draw_inference(rng: Random, label: int) -> SuiteRow:
    """Draw a premise and hypothesis; label 0 entailment, 1 neutral, 2 contradiction (the format of MNLI)."""
    premise, other = draw_premise_and_hypothesis(rng, label)
    return {"premise": render_statement(rng, premise), "hypothesis": render_statement(rng, other), "label": label}


def draw_answerability(rng: Random, label: int) -> SuiteRow | None:
    """Draw a question and a sentence; label 0 if the sentence has the answer, else 1 (the format of QNLI)."""
    event = draw_event(rng, place=0.8, time=0.5)
    role = draw_role(rng, event)
    stated = event
    if label == 1:
        stated = (
            replace_parts(event, **{role: None})
            if role in ("place", "time") and rng.random() < 0.5
            else change_meaning(rng, event)
        )
        if getattr(stated, role) and agrees_except(event, stated, role):
            return None
    return {"question": render_question(rng, event, role), "sentence": render_statement(rng, stated), "label": label}


def draw_entailment(rng: Random, label: int) -> SuiteRow:
    """Draw a premise of two sentences and a hypothesis; label 0 entailment, 1 no entailment (the format of RTE)."""
    premise, other = draw_premise_and_hypothesis(rng, 0 if label == 0 else rng.choice((1, 2)))
    sentences = [render_statement(rng, premise), render_statement(rng, draw_event(rng, negated=0.2))]
    rng.shuffle(sentences)
    return {"sentence1": " ".join(sentences), "sentence2": render_statement(rng, other), "label": label}


def draw_reviews(rng: Random, label: int) -> SuiteRow:
    """Draw three opinions; label 1 if most of them are positive, else 0 (the format of IMDB and Yelp)."""
    opinions = [draw_opinion(rng, bool(label)), draw_opinion(rng, bool(label)), draw_opinion(rng, rng.random() < 0.5)]
    rng.shuffle(opinions)
    return {"text": " ".join(opinions), "label": label}


def draw_word_order(rng: Random, label: int) -> SuiteRow | None:
    """Draw two statements with nearly the same words; label 1 for the same meaning, else 0 (the format of PAWS)."""
    event = draw_event(rng)
    changes = [
        change
        for change, fits in ((swap_participants, can_swap), (swap_adjectives, can_swap_adjectives))
        if fits(event)
    ]
    if not changes:
        return None
    other = event if label else rng.choice(changes)(event)
    return {"sentence1": render_statement(rng, event), "sentence2": render_statement(rng, other), "label": label}


def draw_yes_no(rng: Random, label: int) -> SuiteRow:
    """Draw a passage of three statements and a question; label 1 yes, 0 no (the format of BoolQ)."""
    # The question is about the first event. For either label, one or two of the three events are negated.
    negations = [label == 0, rng.random() < 0.5, label == 1]
    events = [replace(draw_event(rng), negated=negated) for negated in negations]
    passage = [render_statement(rng, event) for event in events]
    rng.shuffle(passage)
    return {"question": render_polar_question(rng, events[0]), "passage": " ".join(passage), "label": label}


def draw_support(rng: Random, label: int) -> SuiteRow:
    """Draw a premise and hypothesis; label 1 is written `entails`, 0 `neutral` (the format of SciTail)."""
    return {**draw_inference(rng, 1 - label), "label": ("neutral", "entails")[label]}


@dataclass(frozen=True)
class Recipe:
    """The builder of a task's rows, the number of labels, and whether the task has a small training set."""

    build: Builder
    labels: int = 2
    small: bool = False


ROLES: tuple[Role, ...] = ("agent", "patient", "place", "time")
PARTS: tuple[Part, ...] = ("agent", "verb", "patient", "place", "time")
SUITE = {
    "acceptability": Recipe(draw_acceptability),
    "sentiment": Recipe(draw_sentiment),
    "paraphrase": Recipe(draw_paraphrase),
    "duplicates": Recipe(draw_duplicates),
    "similarity": Recipe(draw_similarity, labels=6),
    "inference": Recipe(draw_inference, labels=3),
    "answerability": Recipe(draw_answerability),
    "entailment": Recipe(draw_entailment, small=True),
    "reviews": Recipe(draw_reviews),
    "word_order": Recipe(draw_word_order),
    "yes_no": Recipe(draw_yes_no),
    "support": Recipe(draw_support),
}


def draw_rows(task: str, split: Split, count: int, seed: int) -> Iterator[SuiteRow]:
    """Yield `count` different rows of a task's split, with balanced labels in random order.

    The same arguments yield the same rows. Every sentence of a row belongs only to `split` (`sentences.is_in_split`).
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
            if texts not in seen and len(set(texts)) == len(texts) and is_in_split(split, *texts):
                break
        seen.add(texts)
        yield row


def write_language_rows(tasks: Tasks, data: DataSettings, settings: EmbeddedSettings, seed: int) -> Writer:
    """Return a function that writes the rows of the tasks whose source is the embedded language.

    The files are `<name>/<split>.parquet`; `<name>` is the task's `source.name` or, if it is not set, the task's name.

    Args:
        tasks: all tasks; those with another source are skipped.
        data: the default source.
        settings: the numbers of rows.
        seed: seed of all rows.

    Raises:
        HyperFormerError: if such a task's `<name>` is not in `SUITE`.
    """
    rows: dict[str, dict[str, Dataset]] = {}
    for task, task_settings in track(tasks.root.items(), "generating rows", len(tasks.root)):
        name = task_settings.source.name or task
        if (task_settings.source.path or data.source) != EMBEDDED:
            continue
        if name not in SUITE:
            known = ", ".join(SUITE)
            raise HyperFormerError(
                f"task {task!r}: the embedded language has no {name!r}; expected one of {known}. Set source.path or "
                "source.name."
            )
        train = settings.small_train if SUITE[name].small else settings.train
        counts = {"train": train, "validation": settings.validation, "test": settings.test}
        rows[name] = {split: Dataset.from_list(list(draw_rows(name, split, counts[split], seed))) for split in SPLITS}
    return write_rows(rows)
