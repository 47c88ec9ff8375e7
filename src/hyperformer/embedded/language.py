"""A small English with a grammar: words, events and the sentences and questions that say them.

Meaning comes first here: an `Event` is what happened, and `statement` or `question` put it into words in one of several
ways (voice, synonyms, order). Every label of the embedded tasks is a relation between events, never between words.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, TypeVar

from hyperformer.types import Split

Role = Literal["agent", "patient", "place", "time"]
Part = Literal["agent", "verb", "patient", "place", "time", "adjective"]

SPLIT_BUCKETS: dict[Split, range] = {"train": range(0, 5), "validation": range(5, 7), "test": range(7, 10)}
SYNONYM_RATE = 0.4
T = TypeVar("T")
Words = tuple[str, ...]


def in_split(split: Split, *texts: str) -> bool:
    """Whether every sentence of `texts` belongs to `split`: each is in exactly one, by a checksum of its letters."""
    sentences = (part for text in texts for part in re.split(r"(?<=[.?]) ", text))
    return all(zlib.crc32(part.lower().encode()) % 10 in SPLIT_BUCKETS[split] for part in sentences)


@dataclass(frozen=True)
class Noun:
    """A concept with its words; the first is the plain one. `kind` names the wider concept."""

    words: tuple[str, ...]
    kind: str

    @property
    def animate(self) -> bool:
        return self.kind in ("person", "animal")


@dataclass(frozen=True)
class Verb:
    """A concept with its words, each as (base, third person, past, participle)."""

    words: tuple[tuple[str, str, str, str], ...]


def _plural(word: str) -> str:
    if word == "person":
        return "people"
    if word.endswith(("x", "ch", "sh", "s")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def _nouns(kind: str, concepts: str) -> list[Noun]:
    return [Noun(tuple(concept.split("|")), kind) for concept in concepts.split()]


def _regular(base: str) -> tuple[str, str, str, str]:
    past = base + "d" if base.endswith("e") else base[:-1] + "ied" if base.endswith("ry") else base + "ed"
    return base, _plural(base), past, past


_IRREGULAR = {
    "find": ("find", "finds", "found", "found"),
    "hide": ("hide", "hides", "hid", "hidden"),
    "buy": ("buy", "buys", "bought", "bought"),
    "sell": ("sell", "sells", "sold", "sold"),
    "draw": ("draw", "draws", "drew", "drawn"),
    "lose": ("lose", "loses", "lost", "lost"),
    "spot": ("spot", "spots", "spotted", "spotted"),
    "drag": ("drag", "drags", "dragged", "dragged"),
    "drop": ("drop", "drops", "dropped", "dropped"),
    "trap": ("trap", "traps", "trapped", "trapped"),
    "snub": ("snub", "snubs", "snubbed", "snubbed"),
    "sleep": ("sleep", "sleeps", "slept", "slept"),
    "run": ("run", "runs", "ran", "run"),
    "sing": ("sing", "sings", "sang", "sung"),
}


def _verbs(concepts: str) -> list[Verb]:
    return [
        Verb(tuple(_IRREGULAR.get(word) or _regular(word) for word in concept.split("|")))
        for concept in concepts.split()
    ]


NOUNS = [
    *_nouns(
        "person", "doctor|physician lawyer|attorney teacher|instructor pilot|aviator singer|vocalist painter|artist"
    ),
    *_nouns("person", "farmer|grower guard|sentry kid|youngster baker"),
    *_nouns("animal", "dog|hound cat|feline rabbit|bunny pig|hog horse|steed snake|serpent goat duck"),
    *_nouns("vehicle", "car|automobile bike|bicycle truck|lorry boat|vessel"),
    *_nouns("fruit", "apple pear plum"),
    *_nouns("instrument", "violin|fiddle drum flute"),
    *_nouns("garment", "coat|jacket hat|cap scarf|shawl"),
    *_nouns("tool", "hammer|mallet rake shovel|spade"),
]
KINDS = {kind: Noun((kind,), "thing") for kind in dict.fromkeys(noun.kind for noun in NOUNS)}
ANIMATE = [noun for noun in NOUNS if noun.animate]
NAMES = ["Mia", "Leo", "Anna", "Tom", "Eva", "Max", "Nina", "Paul"]
_PAIRED = _verbs(
    "love|adore hate|detest buy|purchase sell push|shove pull|drag find|discover lose lift|raise drop "
    "wash|rinse soil|stain help|assist hinder|obstruct hide|conceal reveal praise|commend scold|rebuke "
    "greet|welcome ignore|snub free|release trap"
)
ACTIONS = _PAIRED + _verbs("chase|pursue notice|spot carry|haul follow|trail watch|observe paint draw|sketch touch")
OPPOSITE_ACTIONS = {_PAIRED[i]: _PAIRED[i ^ 1] for i in range(len(_PAIRED))}
STATES = _verbs("sleep|snooze laugh|chuckle dance wait|linger run|race sing rest|relax jump|leap")
ADJECTIVES: list[Words] = [
    ("big", "large"),
    ("small", "little"),
    ("old", "aged"),
    ("young",),
    ("happy", "glad"),
    ("sad", "gloomy"),
]
ADJECTIVES += [("angry", "furious"), ("calm", "quiet"), ("clean", "tidy"), ("dirty", "grimy")]
OPPOSITES = {ADJECTIVES[i]: ADJECTIVES[i ^ 1] for i in range(len(ADJECTIVES))}
COLOURS: list[Words] = [("red",), ("blue",), ("green",), ("black",), ("white",), ("brown",)]
PLACES: list[Words] = [
    ("in the garden", "in the yard"), ("in the kitchen",), ("in the park",), ("at school",), ("at the office",),
    ("near the river", "by the river"), ("behind the house", "behind the cottage"), ("at the station", "at the depot"),
    ("under the bridge",), ("in the forest", "in the woods"), ("on the hill",), ("at the market",),
]  # fmt: skip
TIMES: list[Words] = [
    ("in the morning",),
    ("at noon", "at midday"),
    ("at night",),
    ("on sunday",),
    ("on monday",),
    ("in the evening",),
]


@dataclass(frozen=True)
class Phrase:
    """Who or what takes part: a name, or a determiner, at most one adjective and a noun."""

    noun: Noun | None = None
    name: str = ""
    determiner: str = "the"
    adjective: Words | None = None
    plural: bool = False


@dataclass(frozen=True)
class Event:
    """What happens: `patient` is None where the verb takes none."""

    agent: Phrase
    verb: Verb
    patient: Phrase | None
    place: Words | None = None
    time: Words | None = None
    past: bool = False
    negated: bool = False


def having(event: Event, **parts: Any) -> Event:
    """The event with some of its parts replaced; which ones may be data, which the types of `replace` refuse."""
    return replace(event, **parts)


def a_phrase(rng: Random, nouns: list[Noun], adjective_rate: float = 0.5, names: bool = True) -> Phrase:
    """A random participant among `nouns`, or in one case of five a name."""
    if names and rng.random() < 0.2:
        return Phrase(name=rng.choice(NAMES))
    plural = rng.random() < 0.3
    determiner = rng.choice(("the", "some", "two")) if plural else rng.choice(("the", "a"))
    adjective = rng.choice(ADJECTIVES + COLOURS) if rng.random() < adjective_rate else None
    return Phrase(rng.choice(nouns), "", determiner, adjective, plural)


def an_event(rng: Random, *, place: float = 0.6, time: float = 0.3, negated: float = 0.0, state: float = 0.0) -> Event:
    """A random event; the numbers are the rates at which it has a place, a time, a negation, or no patient."""
    agent = a_phrase(rng, ANIMATE)
    patient = None
    if rng.random() >= state:
        patient = agent
        while (patient.noun, patient.name) == (agent.noun, agent.name):
            animate = rng.random() < 0.65
            patient = a_phrase(rng, ANIMATE if animate else NOUNS, names=animate)
    return Event(
        agent,
        rng.choice(ACTIONS if patient else STATES),
        patient,
        rng.choice(PLACES) if rng.random() < place else None,
        rng.choice(TIMES) if rng.random() < time else None,
        rng.random() < 0.5,
        rng.random() < negated,
    )


def say(rng: Random, words: Words) -> str:
    """One of the words of a concept: the plain one, or at `SYNONYM_RATE` any other."""
    return rng.choice(words[1:]) if len(words) > 1 and rng.random() < SYNONYM_RATE else words[0]


def noun_phrase(rng: Random, phrase: Phrase) -> str:
    if phrase.noun is None:
        return phrase.name
    noun = say(rng, phrase.noun.words)
    words = [_plural(noun) if phrase.plural else noun]
    if phrase.adjective:
        words.insert(0, say(rng, phrase.adjective))
    determiner = "an" if phrase.determiner == "a" and words[0][0] in "aeiou" else phrase.determiner
    return " ".join([determiner, *words])


def _finite(event: Event, subject: Phrase, passive: bool, forms: tuple[str, str, str, str]) -> tuple[str, str]:
    """(auxiliary, rest of the verb) of the clause; the auxiliary is empty in a plain active clause."""
    base, third, past, participle = forms
    negation = "not " if event.negated else ""
    if passive:
        be = ("were" if event.past else "are") if subject.plural else ("was" if event.past else "is")
        return be, negation + participle
    if event.negated:
        return ("did" if event.past else "do" if subject.plural else "does"), negation + base
    return "", past if event.past else base if subject.plural else third


def sentence(text: str, mark: str = ".") -> str:
    return text[0].upper() + text[1:] + mark


def _circumstances(rng: Random, event: Event, without: Role | None = None) -> list[str]:
    place = say(rng, event.place) if event.place and without != "place" else ""
    time = say(rng, event.time) if event.time and without != "time" else ""
    return [words for words in (place, time) if words]


def clause(rng: Random, event: Event, passive: bool) -> tuple[str, str, str]:
    """(subject, auxiliary, predicate) without place and time."""
    forms = rng.choice(event.verb.words) if rng.random() < 2 * SYNONYM_RATE else event.verb.words[0]
    if passive and event.patient:
        auxiliary, verb = _finite(event, event.patient, True, forms)
        return noun_phrase(rng, event.patient), auxiliary, f"{verb} by {noun_phrase(rng, event.agent)}"
    auxiliary, verb = _finite(event, event.agent, False, forms)
    return (
        noun_phrase(rng, event.agent),
        auxiliary,
        f"{verb} {noun_phrase(rng, event.patient)}" if event.patient else verb,
    )


def statement(rng: Random, event: Event, passive: bool | None = None) -> str:
    """The event as a sentence. Which voice (`passive`: None for either), which synonyms and which order is drawn."""
    subject, auxiliary, predicate = clause(rng, event, rng.random() < 0.4 if passive is None else passive)
    around = _circumstances(rng, event)
    front = around.pop(0) + "," if around and rng.random() < 0.3 else ""
    return sentence(" ".join(word for word in (front, subject, auxiliary, predicate, *around) if word))


def question(rng: Random, event: Event, role: Role) -> str:
    """The question whose answer is `role` of the event."""
    passive = event.patient is not None and rng.random() < 0.4
    forms = rng.choice(event.verb.words)
    around = _circumstances(rng, event, without=role)
    thing = "what" if event.patient and event.patient.noun and not event.patient.noun.animate else "whom"
    singular = replace(event, negated=False)
    if role == "agent" and not passive:
        auxiliary, verb = _finite(singular, Phrase(name="who"), False, forms)
        words = ["who", verb, noun_phrase(rng, event.patient) if event.patient else ""]
    elif role == "patient" and passive:
        auxiliary, verb = _finite(singular, Phrase(name="who"), True, forms)
        words = ["what" if thing == "what" else "who", auxiliary, verb, "by", noun_phrase(rng, event.agent)]
    else:
        opening = {"agent": "by whom", "patient": thing, "place": "where", "time": "when"}[role]
        subject = event.patient if passive and event.patient else event.agent
        if passive:
            auxiliary, verb = _finite(singular, subject, True, forms)
            by = [] if role == "agent" else ["by", noun_phrase(rng, event.agent)]
            words = [opening, auxiliary, noun_phrase(rng, subject), verb, *by]
        else:
            auxiliary = "did" if event.past else "do" if subject.plural else "does"
            words = [opening, auxiliary, noun_phrase(rng, subject), forms[0]]
            if role != "patient" and event.patient:
                words.append(noun_phrase(rng, event.patient))
    return sentence(" ".join(word for word in (*words, *around) if word), "?")


def polar_question(rng: Random, event: Event) -> str:
    """The question whose answer is yes where the event holds."""
    subject, auxiliary, predicate = clause(rng, replace(event, negated=False), passive=True)
    if not event.patient:
        auxiliary = "did" if event.past else "do" if event.agent.plural else "does"
        predicate = rng.choice(event.verb.words)[0]
    return sentence(" ".join([auxiliary, subject, predicate, *_circumstances(rng, event)]), "?")


def _other(rng: Random, options: list[T], but: object) -> T:
    return rng.choice([option for option in options if option != but])


def swapped(event: Event) -> Event:
    """The same words with agent and patient exchanged; the event must have an animate patient."""
    assert event.patient is not None
    return replace(event, agent=event.patient, patient=event.agent)


def can_swap(event: Event) -> bool:
    return event.patient is not None and (event.patient.noun is None or event.patient.noun.animate)


def crossed(event: Event) -> Event:
    """The same words with the adjectives of agent and patient exchanged."""
    assert event.patient is not None
    return replace(
        event,
        agent=replace(event.agent, adjective=event.patient.adjective),
        patient=replace(event.patient, adjective=event.agent.adjective),
    )


def can_cross(event: Event) -> bool:
    agent, patient = event.agent, event.patient
    return bool(patient and agent.noun and patient.noun and agent.adjective != patient.adjective)


def with_other(rng: Random, event: Event, role: Part) -> Event:
    """The event with one part replaced by a different one; a verb never by its opposite."""
    if role == "verb":
        verbs = [verb for verb in (ACTIONS if event.patient else STATES) if verb != OPPOSITE_ACTIONS.get(event.verb)]
        return replace(event, verb=_other(rng, verbs, event.verb))
    if role in ("place", "time"):
        return having(event, **{role: _other(rng, PLACES if role == "place" else TIMES, getattr(event, role))})
    holder = "agent" if role == "agent" or (role == "adjective" and event.agent.adjective) else "patient"
    phrase = getattr(event, holder)
    if role == "adjective" and phrase.noun:
        return replace(
            event, **{holder: replace(phrase, adjective=_other(rng, ADJECTIVES + COLOURS, phrase.adjective))}
        )
    if phrase.noun is None:
        names = [name for name in NAMES if name not in [p.name for p in (event.agent, event.patient) if p]]
        return having(event, **{holder: replace(phrase, name=rng.choice(names))})
    taken = [p.noun for p in (event.agent, event.patient) if p]
    pool = [noun for noun in (ANIMATE if phrase.noun.animate else NOUNS) if noun not in taken]
    return having(event, **{holder: replace(phrase, noun=rng.choice(pool))})


def different(rng: Random, event: Event) -> Event:
    """An event that is near in words and other in meaning: parts exchanged, or one part replaced."""
    kind = rng.random()
    if kind < 0.4 and can_swap(event):
        return swapped(event)
    if kind < 0.6 and can_cross(event):
        return crossed(event)
    roles: list[Part] = ["agent", "verb", "patient" if event.patient else "verb"]
    circumstances: tuple[Part, ...] = ("place", "time")
    roles += [role for role in circumstances if getattr(event, role)]
    if event.agent.adjective or (event.patient and event.patient.adjective):
        roles.append("adjective")
    return with_other(rng, event, rng.choice(roles))


def wider(rng: Random, event: Event) -> Event:
    """An event that follows from a positive `event`: something left out, or a noun replaced by its kind."""
    options: list[Event] = []
    if event.place:
        options.append(replace(event, place=None))
    if event.time:
        options.append(replace(event, time=None))
    for holder in ("agent", "patient"):
        phrase = getattr(event, holder)
        if phrase and phrase.noun:
            if phrase.adjective:
                options.append(having(event, **{holder: replace(phrase, adjective=None)}))
            if phrase.noun.kind in KINDS:
                determiner = "some" if phrase.plural else "a"
                kind = replace(phrase, noun=KINDS[phrase.noun.kind], determiner=determiner, adjective=None)
                options.append(having(event, **{holder: kind}))
    return rng.choice(options) if options else event


def narrower(rng: Random, event: Event) -> Event:
    """An event that says more than `event`, so that it may or may not hold where it does; itself if it is full."""
    options: list[Event] = []
    if not event.place:
        options.append(replace(event, place=rng.choice(PLACES)))
    if not event.time:
        options.append(replace(event, time=rng.choice(TIMES)))
    for holder in ("agent", "patient"):
        phrase = getattr(event, holder)
        if phrase and phrase.noun and not phrase.adjective:
            options.append(having(event, **{holder: replace(phrase, adjective=rng.choice(ADJECTIVES + COLOURS))}))
    return rng.choice(options) if options else event


OPINION_TOPICS = {
    "film": ["plot", "cast", "ending", "music"],
    "book": ["plot", "ending", "cover", "style"],
    "hotel": ["room", "service", "food", "view"],
    "meal": ["soup", "service", "dessert", "sauce"],
    "concert": ["music", "stage", "band", "sound"],
}
PRAISE = ["wonderful", "great", "delightful", "charming", "excellent", "superb", "brilliant", "lovely"]
BLAME = ["awful", "dull", "terrible", "boring", "dreadful", "poor", "weak", "horrible"]
NEGATORS = ["not", "never", "hardly", "far from"]
STRESS = ["", "", "very", "really", "quite"]


def judgement(rng: Random, thing: str, good: bool) -> str:
    """A clause that finds `thing` good or bad; with a negator in four cases of ten."""
    negated = rng.random() < 0.4
    word = rng.choice(PRAISE if good != negated else BLAME)
    middle = rng.choice(NEGATORS) if negated else rng.choice(STRESS)
    return " ".join(part for part in ("the", thing, rng.choice(("is", "was")), middle, word) if part)


def opinion(rng: Random, good: bool) -> str:
    """A sentence with an opinion; in four cases of ten a first judgement is outweighed by the contrary one."""
    topic = rng.choice(list(OPINION_TOPICS))
    thing, other = rng.sample([topic, *OPINION_TOPICS[topic]], 2)
    voice = f"{rng.choice(NAMES)} {rng.choice(('says', 'thinks', 'finds'))} that " if rng.random() < 0.5 else ""
    if rng.random() >= 0.4:
        return sentence(voice + judgement(rng, thing, good))
    lesser, main = judgement(rng, other, not good), judgement(rng, thing, good)
    orders = (f"although {lesser}, {main}", f"{main}, although {lesser}", f"{lesser}, but {main}")
    return sentence(voice + rng.choice(orders))


AGREEMENT = {"is": "are", "are": "is", "was": "were", "were": "was", "does": "do", "do": "does"}
FORMS = {word: forms for verb in ACTIONS + STATES for forms in verb.words for word in forms}
NUMBERS = {word: _plural(word) for noun in [*NOUNS, *KINDS.values()] for word in noun.words}
SINGULARS = {plural: word for word, plural in NUMBERS.items()}


def _wrong_verb(rng: Random, words: list[str]) -> bool:
    """Breaks agreement, or the verb form that an auxiliary asks for; False where neither can be done."""
    auxiliary = next((i for i, word in enumerate(words) if word in AGREEMENT or word == "did"), None)
    verb = next((i for i, word in enumerate(words) if word in FORMS), None)
    if auxiliary is not None and words[auxiliary] in AGREEMENT and (verb is None or rng.random() < 0.5):
        words[auxiliary] = AGREEMENT[words[auxiliary]]
        return True
    if verb is None:
        return False
    base, third, past, _ = FORMS[words[verb]]
    if auxiliary is not None:
        words[verb] = rng.choice((third, past) if words[auxiliary] in ("do", "does", "did") else (base, third))
        return True
    if words[verb] not in (base, third):
        return False
    words[verb] = third if words[verb] == base else base
    return True


def _wrong_number(rng: Random, words: list[str]) -> bool:
    """Breaks the number of a noun that "a" or "two" counts; False where there is none."""
    places = [i for i, word in enumerate(words) if word in ("a", "an", "two")]
    if not places:
        return False
    start = rng.choice(places)
    for i in range(start + 1, min(start + 3, len(words))):
        bare = words[i].strip(",")
        other = SINGULARS.get(bare) if words[start] == "two" else NUMBERS.get(bare)
        if other:
            words[i] = words[i].replace(bare, other)
            return True
    return False


def spoiled(rng: Random, text: str) -> str | None:
    """The statement with one fault: in order, agreement, number, a missing or a doubled word; None: it does not fit."""
    words = text[:-1].split()
    words[0] = words[0] if words[0] in NAMES else words[0].lower()
    kind = rng.random()
    if kind < 0.3:
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1].strip(","), words[i].strip(",")
    elif kind < 0.6:
        if not _wrong_verb(rng, words):
            return None
    elif kind < 0.75:
        if not _wrong_number(rng, words):
            return None
    elif kind < 0.9:
        places = [i for i, word in enumerate(words) if word in ("the", "a", "an", "by", "in", "at", "on", "is", "was")]
        if not places:
            return None
        del words[rng.choice(places)]
    else:
        i = rng.randrange(len(words))
        words.insert(i, words[i].strip(","))
    return sentence(" ".join(words), text[-1])
