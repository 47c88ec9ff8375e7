"""An artificial small English: vocabulary, events, and the sentences and questions that express them.

An `Event` is a meaning, which `render_statement` and `render_question` express with random voice, synonyms and order.
In tasks with two texts, the label is a relation between events, never between words.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, TypeVar

from hyperformer.core.types import Split

Role = Literal["agent", "patient", "place", "time"]
Part = Literal["agent", "verb", "patient", "place", "time", "adjective"]

SPLIT_BUCKETS: dict[Split, range] = {"train": range(0, 5), "validation": range(5, 7), "test": range(7, 10)}
SYNONYM_PROBABILITY = 0.4  # probability of a synonym in place of the basic word of a concept
T = TypeVar("T")
Synonyms = tuple[str, ...]


def is_in_split(split: Split, *texts: str) -> bool:
    """Return whether every sentence of `texts` belongs to `split`, which a checksum of the sentence determines."""
    sentences = (sentence for text in texts for sentence in re.split(r"(?<=[.?]) ", text))
    return all(zlib.crc32(sentence.lower().encode()) % 10 in SPLIT_BUCKETS[split] for sentence in sentences)


@dataclass(frozen=True)
class Noun:
    """A concept with its synonyms, the basic word first; `kind` is its hypernym."""

    synonyms: tuple[str, ...]
    kind: str

    @property
    def animate(self) -> bool:
        """True if the noun can be an agent."""
        return self.kind in ("person", "animal")


@dataclass(frozen=True)
class Verb:
    """A concept with its synonyms, each as (base, third person, past, participle)."""

    synonyms: tuple[tuple[str, str, str, str], ...]


def _pluralize(word: str) -> str:
    if word == "person":
        return "people"
    if word.endswith(("x", "ch", "sh", "s")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def _parse_nouns(kind: str, concepts: str) -> list[Noun]:
    return [Noun(tuple(concept.split("|")), kind) for concept in concepts.split()]


def _conjugate(base: str) -> tuple[str, str, str, str]:
    past = base + "d" if base.endswith("e") else base[:-1] + "ied" if base.endswith("ry") else base + "ed"
    return base, _pluralize(base), past, past


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


def _parse_verbs(concepts: str) -> list[Verb]:
    return [
        Verb(tuple(_IRREGULAR.get(word) or _conjugate(word) for word in concept.split("|")))
        for concept in concepts.split()
    ]


NOUNS = [
    *_parse_nouns(
        "person", "doctor|physician lawyer|attorney teacher|instructor pilot|aviator singer|vocalist painter|artist"
    ),
    *_parse_nouns("person", "farmer|grower guard|sentry kid|youngster baker"),
    *_parse_nouns("animal", "dog|hound cat|feline rabbit|bunny pig|hog horse|steed snake|serpent goat duck"),
    *_parse_nouns("vehicle", "car|automobile bike|bicycle truck|lorry boat|vessel"),
    *_parse_nouns("fruit", "apple pear plum"),
    *_parse_nouns("instrument", "violin|fiddle drum flute"),
    *_parse_nouns("garment", "coat|jacket hat|cap scarf|shawl"),
    *_parse_nouns("tool", "hammer|mallet rake shovel|spade"),
]
KINDS = {kind: Noun((kind,), "thing") for kind in dict.fromkeys(noun.kind for noun in NOUNS)}
ANIMATE = [noun for noun in NOUNS if noun.animate]
NAMES = ["Mia", "Leo", "Anna", "Tom", "Eva", "Max", "Nina", "Paul"]
_PAIRED = _parse_verbs(
    "love|adore hate|detest buy|purchase sell push|shove pull|drag find|discover lose lift|raise drop "
    "wash|rinse soil|stain help|assist hinder|obstruct hide|conceal reveal praise|commend scold|rebuke "
    "greet|welcome ignore|snub free|release trap"
)
ACTIONS = _PAIRED + _parse_verbs(
    "chase|pursue notice|spot carry|haul follow|trail watch|observe paint draw|sketch touch"
)
OPPOSITE_ACTIONS = {_PAIRED[i]: _PAIRED[i ^ 1] for i in range(len(_PAIRED))}
STATES = _parse_verbs("sleep|snooze laugh|chuckle dance wait|linger run|race sing rest|relax jump|leap")
ADJECTIVES: list[Synonyms] = [
    ("big", "large"),
    ("small", "little"),
    ("old", "aged"),
    ("young",),
    ("happy", "glad"),
    ("sad", "gloomy"),
]
ADJECTIVES += [("angry", "furious"), ("calm", "quiet"), ("clean", "tidy"), ("dirty", "grimy")]
OPPOSITES = {ADJECTIVES[i]: ADJECTIVES[i ^ 1] for i in range(len(ADJECTIVES))}
COLOURS: list[Synonyms] = [("red",), ("blue",), ("green",), ("black",), ("white",), ("brown",)]
PLACES: list[Synonyms] = [
    ("in the garden", "in the yard"), ("in the kitchen",), ("in the park",), ("at school",), ("at the office",),
    ("near the river", "by the river"), ("behind the house", "behind the cottage"), ("at the station", "at the depot"),
    ("under the bridge",), ("in the forest", "in the woods"), ("on the hill",), ("at the market",),
]  # fmt: skip
TIMES: list[Synonyms] = [
    ("in the morning",),
    ("at noon", "at midday"),
    ("at night",),
    ("on sunday",),
    ("on monday",),
    ("in the evening",),
]


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


def choose_synonym(rng: Random, synonyms: Synonyms) -> str:
    """Return the basic word of a concept, or another of its synonyms with probability `SYNONYM_PROBABILITY`."""
    return rng.choice(synonyms[1:]) if len(synonyms) > 1 and rng.random() < SYNONYM_PROBABILITY else synonyms[0]


def render_noun_phrase(rng: Random, phrase: Phrase) -> str:
    """Return a participant as text."""
    if phrase.noun is None:
        return phrase.name
    noun = choose_synonym(rng, phrase.noun.synonyms)
    tokens = [_pluralize(noun) if phrase.plural else noun]
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


def draw_judgement(rng: Random, thing: str, good: bool) -> str:
    """Draw a clause that calls `thing` good or bad, with a negator with probability 0.4."""
    negated = rng.random() < 0.4
    word = rng.choice(PRAISE if good != negated else BLAME)
    middle = rng.choice(NEGATORS) if negated else rng.choice(STRESS)
    return " ".join(part for part in ("the", thing, rng.choice(("is", "was")), middle, word) if part)


def draw_opinion(rng: Random, good: bool) -> str:
    """Draw a sentence with an opinion and, with probability 0.4, a concession to the contrary."""
    topic = rng.choice(list(OPINION_TOPICS))
    thing, other = rng.sample([topic, *OPINION_TOPICS[topic]], 2)
    voice = f"{rng.choice(NAMES)} {rng.choice(('says', 'thinks', 'finds'))} that " if rng.random() < 0.5 else ""
    if rng.random() >= 0.4:
        return format_sentence(voice + draw_judgement(rng, thing, good))
    lesser, main = draw_judgement(rng, other, not good), draw_judgement(rng, thing, good)
    orders = (f"although {lesser}, {main}", f"{main}, although {lesser}", f"{lesser}, but {main}")
    return format_sentence(voice + rng.choice(orders))


AGREEMENT = {"is": "are", "are": "is", "was": "were", "were": "was", "does": "do", "do": "does"}
FORMS = {word: forms for verb in ACTIONS + STATES for forms in verb.synonyms for word in forms}
NUMBERS = {word: _pluralize(word) for noun in [*NOUNS, *KINDS.values()] for word in noun.synonyms}
SINGULARS = {plural: word for word, plural in NUMBERS.items()}


def _break_verb(rng: Random, tokens: list[str]) -> bool:
    """Break agreement, or the verb form after an auxiliary; return False if neither is possible."""
    auxiliary = next((i for i, word in enumerate(tokens) if word in AGREEMENT or word == "did"), None)
    verb = next((i for i, word in enumerate(tokens) if word in FORMS), None)
    if auxiliary is not None and tokens[auxiliary] in AGREEMENT and (verb is None or rng.random() < 0.5):
        tokens[auxiliary] = AGREEMENT[tokens[auxiliary]]
        return True
    if verb is None:
        return False
    base, third, past, _ = FORMS[tokens[verb]]
    if auxiliary is not None:
        tokens[verb] = rng.choice((third, past) if tokens[auxiliary] in ("do", "does", "did") else (base, third))
        return True
    if tokens[verb] not in (base, third):
        return False
    tokens[verb] = third if tokens[verb] == base else base
    return True


def _break_number(rng: Random, tokens: list[str]) -> bool:
    """Give a noun after "a" or "two" the wrong form, singular or plural; return False if there is no such noun."""
    positions = [i for i, word in enumerate(tokens) if word in ("a", "an", "two")]
    if not positions:
        return False
    start = rng.choice(positions)
    for i in range(start + 1, min(start + 3, len(tokens))):
        bare = tokens[i].strip(",")
        other = SINGULARS.get(bare) if tokens[start] == "two" else NUMBERS.get(bare)
        if other:
            tokens[i] = tokens[i].replace(bare, other)
            return True
    return False


def add_fault(rng: Random, text: str) -> str | None:
    """Return the sentence with a random grammatical fault, or None if it does not allow the fault.

    A fault is two exchanged words, a wrong verb form, a wrong singular or plural, a missing word or a doubled word.
    """
    tokens = text[:-1].split()
    tokens[0] = tokens[0] if tokens[0] in NAMES else tokens[0].lower()
    kind = rng.random()
    if kind < 0.3:
        i = rng.randrange(len(tokens) - 1)
        tokens[i], tokens[i + 1] = tokens[i + 1].strip(","), tokens[i].strip(",")
    elif kind < 0.6:
        if not _break_verb(rng, tokens):
            return None
    elif kind < 0.75:
        if not _break_number(rng, tokens):
            return None
    elif kind < 0.9:
        positions = [
            i for i, word in enumerate(tokens) if word in ("the", "a", "an", "by", "in", "at", "on", "is", "was")
        ]
        if not positions:
            return None
        del tokens[rng.choice(positions)]
    else:
        i = rng.randrange(len(tokens))
        tokens.insert(i, tokens[i].strip(","))
    return format_sentence(" ".join(tokens), text[-1])
