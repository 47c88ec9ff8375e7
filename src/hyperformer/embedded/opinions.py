"""Opinions: sentences that call a thing good or bad."""

from __future__ import annotations

from random import Random

from hyperformer.embedded.lexicon import BLAME, NAMES, NEGATORS, OPINION_TOPICS, PRAISE, STRESS
from hyperformer.embedded.sentences import format_sentence


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
