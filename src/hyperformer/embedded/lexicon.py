"""The vocabulary of the embedded language: concepts with their synonyms and word forms."""

from __future__ import annotations

from dataclasses import dataclass

Synonyms = tuple[str, ...]


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


def pluralize(word: str) -> str:
    """Return the plural of a noun, which is also the third person of a verb."""
    if word == "person":
        return "people"
    if word.endswith(("x", "ch", "sh", "s")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def _parse_nouns(kind: str, concepts: str) -> list[Noun]:
    return [Noun(tuple(concept.split("|")), kind) for concept in concepts.split()]


def _conjugate(base: str) -> tuple[str, str, str, str]:
    past = base + "d" if base.endswith("e") else base[:-1] + "ied" if base.endswith("ry") else base + "ed"
    return base, pluralize(base), past, past


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
