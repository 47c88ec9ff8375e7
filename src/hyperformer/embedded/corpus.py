"""Pretraining text of the embedded language: documents, and pairs of a prompted source and its target.

A row has a `source` and a `target`; if `target` is empty, the source is a document for span corruption. The pairs are
those of `objectives.py`, in the order of a curriculum. Many texts follow an invented field name and a colon, so that
the backbone can read the field names of new templates. The corpus has no task template, no sentence of a validation or
test split, and no answer of a task as a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from string import ascii_lowercase

from hyperformer.core.progress import track
from hyperformer.data import plaintext
from hyperformer.data.storage import Rows, collect_rows, stream_training_texts
from hyperformer.embedded.objectives import (
    Pair,
    draw_changed_parts,
    draw_common_parts,
    draw_confirmation,
    draw_copy,
    draw_correction,
    draw_document,
    draw_fault,
    draw_inference,
    draw_link,
    draw_passive,
    draw_question_pair,
    draw_reaction,
    draw_reply,
    draw_shared_words,
    draw_simplification,
)
from hyperformer.embedded.sentences import is_in_split
from hyperformer.settings import PretrainingSettings
from hyperformer.tasks import Task

Objectives = list[tuple[Callable[[Random], Pair | None], float]]
COPYING: Objectives = [(draw_copy, 2), (draw_shared_words, 1)]
DESCRIBING: Objectives = [
    (draw_document, 3),
    (draw_copy, 1),
    (draw_shared_words, 2),
    (draw_simplification, 2),
    (draw_passive, 2),
    (draw_correction, 2),
    (draw_fault, 3),
    (draw_reply, 4),
    (draw_common_parts, 3),
    (draw_changed_parts, 3),
]
CLASSIFYING: Objectives = [
    *DESCRIBING,
    (draw_link, 5),
    (draw_inference, 8),
    (draw_question_pair, 4),
    (draw_reply, 3),
    (draw_fault, 3),
    (draw_reaction, 3),
    (draw_confirmation, 1),
]
CURRICULUM: list[tuple[float, Objectives]] = [(0.04, COPYING), (0.5, DESCRIBING), (1.0, CLASSIFYING)]
"""Stages, each with the share of the rows at which it ends, and its weighted objectives. Copying comes first, then
describing sentences, then classifying pairs: labels alone are too weak a signal to learn copying and comparing."""


def draw_pairs(count: int, seed: int) -> Iterator[Pair]:
    """Yield `count` pairs and documents in the order of `CURRICULUM`.

    Every sentence in them belongs to the train split. The same arguments yield the same pairs.
    """
    rng = Random(f"{seed}/corpus")
    for number in range(count):
        objectives = next(stage for end, stage in CURRICULUM if number < end * count)
        builders, weights = zip(*objectives, strict=True)
        (build,) = rng.choices(builders, weights)
        while True:
            pair = build(rng)
            if pair and is_in_split("train", *pair.texts, *([pair.target] if pair.target.endswith(".") else [])):
                break
        yield pair


def build_pretraining_rows(settings: PretrainingSettings, tasks: Mapping[str, Task], rows: Path, seed: int) -> Rows:
    """Return pretraining rows from a text file and the tasks' training texts, or from the embedded language.

    Args:
        settings: pretraining settings; if `text_file` is None, the rows come from the embedded language.
        tasks: the tasks whose training texts are added to the text file.
        rows: the folder of checked rows.
        seed: seed of the rows.
    """
    if settings.text_file:
        extra = stream_training_texts(rows, tasks)
        stream = plaintext.generate_rows(settings.text_file, extra, settings.rows, settings.max_tokens // 2, seed)
    else:
        stream = draw_corpus(settings.rows, seed)
    return collect_rows(track(stream, "generating pretraining rows", settings.rows))


def draw_corpus(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield `count` rows of pretraining text: the pairs of `draw_pairs`, each in one of several formats."""
    rng = Random(f"{seed}/layout")
    for pair in draw_pairs(count, seed):
        yield {"source": format_source(rng, pair), "target": pair.target}


def format_source(rng: Random, pair: Pair) -> str:
    """Return the source of a pair: its prompt, if it has one, and its texts.

    In half of the cases, each text follows an invented field name. Otherwise the texts are separated by slashes, or by
    spaces in a document.
    """
    if rng.random() < 0.5:
        return f"{pair.prompt}: {' / '.join(pair.texts)}" if pair.prompt else " ".join(pair.texts)
    names = [_invent_name(rng) for _ in pair.texts]
    if rng.random() < 0.5:
        names = [f"{names[0]}{number}" for number in range(1, 1 + len(names))]
    return " ".join([pair.prompt, *(f"{name}: {text}" for name, text in zip(names, pair.texts, strict=True))]).lstrip()


def _invent_name(rng: Random) -> str:
    return "".join(rng.choices(ascii_lowercase, k=rng.randint(3, 9)))
