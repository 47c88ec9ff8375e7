"""Features of the baselines: TF-IDF, the overlap of two texts, and embeddings of the frozen backbone."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from hyperformer.data.storage import Rows
from hyperformer.tasks import Task

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Texts = list[list[str]]
"""The texts of the rows of train, validation and test."""
Features = Sequence[Any]
"""The features of the rows of train, validation and test, each an array or a sparse matrix [rows, features]."""

MAX_FEATURES = 50_000
"""Maximum number of n-grams; the most frequent ones are used."""
RARE_ROWS = 1_000
"""Number of training rows above which an n-gram must occur in two of them."""

UNSPACED_SHARE = 0.2
"""Minimum share of characters of scripts without spaces in texts whose n-grams are of characters."""
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u3040-\u312f\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"  # Japanese, Chinese
    "\u2600-\u27bf\U0001f000-\U0003ffff]"  # emoji, rare Chinese
)
"""A character of a script without spaces between words, or an emoji."""
WORD = r"[\w\u0300-\u036f\u0591-\u06ed\u0900-\u109f]+"
"""A word: letters, digits, and the combining marks of European, Middle Eastern and South Asian scripts."""


def list_features(
    task: Task, splits: Sequence[Rows], embedded: Sequence[int], embed: Embed
) -> dict[str, Callable[[], Features]]:
    """Return, by baseline, a function that computes its features, and raises ValueError if there are none.

    Args:
        task: the task.
        splits: the rows of train, validation and test.
        embedded: indices of the training rows that are embedded; the other features are those of all training rows.
        embed: computes the backbone's embeddings of texts, [texts, d].
    """
    columns = [[[str(row[column]) for row in rows] for rows in splits] for column in task.text_columns]
    joined = [[" ".join(texts) for texts in zip(*split, strict=True)] for split in zip(*columns, strict=True)]
    is_pair = len(columns) == 2
    tfidf = functools.cache(lambda: compute_tfidf(joined))
    functions: dict[str, Callable[[], Features]] = {"tfidf": tfidf}
    if task.answers and is_pair:
        functions["overlap"] = lambda: _append_overlap(tfidf(), columns, is_written_without_spaces(joined[0]))
    texts = [[[split[0][row] for row in embedded], *split[1:]] for split in (columns if is_pair else [joined])]
    functions["frozen"] = lambda: _embed_splits(texts, embed)
    return functions


def is_written_without_spaces(texts: Sequence[str]) -> bool:
    """Return whether training texts are written without spaces, so that their n-grams are of characters, not of words.

    They are if at least `UNSPACED_SHARE` of the letters, digits and emoji are emoji or belong to scripts without spaces
    between words, such as Chinese, Japanese and Thai, or if there are no letters, digits or emoji at all.
    """
    rest = [UNSPACED.sub("", text) for text in texts]
    unspaced = sum(map(len, texts)) - sum(map(len, rest))
    spaced = sum(len(word) for text in rest for word in re.findall(WORD, text))
    return unspaced >= UNSPACED_SHARE * (unspaced + spaced)


def compute_tfidf(texts: Texts) -> Features:
    """Compute TF-IDF of n-grams: one or two words, or one to three characters."""
    in_characters = is_written_without_spaces(texts[0])
    rows = 2 if len(texts[0]) > RARE_ROWS else 1
    vectorizer = TfidfVectorizer(
        analyzer="char" if in_characters else "word",
        token_pattern=None if in_characters else WORD,
        ngram_range=(1, 3) if in_characters else (1, 2),
        min_df=rows,
        max_features=MAX_FEATURES,
    )
    try:
        train = vectorizer.fit_transform(texts[0])
    except ValueError:
        unit = "character" if in_characters else "word"
        raise ValueError(f"no {unit} occurs in {'two training rows' if rows == 2 else 'a training row'}") from None
    return [train, *map(vectorizer.transform, texts[1:])]


def _append_overlap(tfidf: Features, columns: Sequence[Texts], in_characters: bool) -> Features:
    """Append standardized features of the overlap of two texts to TF-IDF."""
    overlap = [
        np.array([_compute_overlap(first, second, in_characters) for first, second in zip(*split, strict=True)])
        for split in zip(*columns, strict=True)
    ]
    return [
        sparse.hstack([ngrams, features]).tocsr() for ngrams, features in zip(tfidf, _standardize(overlap), strict=True)
    ]


def _embed_splits(columns: Sequence[Texts], embed: Embed) -> Features:
    """Return standardized features from the backbone's embeddings of one text, or of two."""
    ends = list(accumulate(map(len, columns[0])))[:-1]
    vectors = [embed([text for split in column for text in split]) for column in columns]  # [rows, d]
    if len(vectors) == 2:
        u, v = vectors
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = [u, v, np.abs(u - v), u * v]
    features = np.concatenate(vectors, axis=1)  # [rows, d] or [rows, 4d]
    if not np.isfinite(features).all():
        raise ValueError("the backbone's embeddings have NaN or infinite values")
    return _standardize(np.split(features, ends))


def _standardize(features: Features) -> Features:
    """Standardize features by those of train, and divide them by the square root of their number.

    The mean squared norm of a row of train is then at most 1, as that of TF-IDF is, so that `STRENGTHS` suit both.
    """
    scaler = StandardScaler().fit(features[0])
    return [scaler.transform(part) / part.shape[1] ** 0.5 for part in features]


def _compute_overlap(first: str, second: str, in_characters: bool) -> list[float]:
    """Compute features of the overlap of two texts: shared words and bigrams, lengths, negation, word order."""
    a_words, b_words = (_split_words(text, in_characters) for text in (first, second))
    a, b = set(a_words), set(b_words)
    pairs_a, pairs_b = set(pairwise(a_words)), set(pairwise(b_words))
    shared, shared_pairs = len(a & b), len(pairs_a & pairs_b)
    common = [word for word in a_words if word in b]
    position = {word: index for index, word in reversed(list(enumerate(b_words)))}  # the first, if it is repeated
    in_order = sum(position[x] < position[y] for x, y in pairwise(common))
    return [
        shared / max(len(a | b), 1),
        shared / max(len(a), 1),
        shared / max(len(b), 1),
        shared_pairs / max(len(pairs_a | pairs_b), 1),
        shared_pairs / max(len(pairs_b), 1),
        len(a_words) - len(b_words),
        abs(len(a_words) - len(b_words)),
        float(("not" in a) != ("not" in b)),
        in_order / max(len(common) - 1, 1),
        float(a_words[:1] == b_words[:1]),
    ]


def _split_words(text: str, in_characters: bool) -> list[str]:
    text = text.lower().replace(".", "").replace("?", "")
    return list("".join(text.split())) if in_characters else text.split()
