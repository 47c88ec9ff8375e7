"""Baselines to compare a trained model with: simple models on words, on overlap, and on frozen embeddings."""

from __future__ import annotations

import functools
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hyperformer.core.errors import first_line
from hyperformer.core.progress import track
from hyperformer.core.types import Split
from hyperformer.data.storage import Rows, open_parquet, read_rows, report_damage, sample_rows
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

Metrics = dict[str, float]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Texts = list[list[str]]
"""The texts of the rows of train, validation and test."""
Features = Sequence[Any]
"""The features of the rows of train, validation and test, each an array or a sparse matrix [rows, features]."""

MAX_TRAIN_ROWS = 20_000
"""Maximum number of rows that the baselines of a task are fitted to."""
MAX_VALIDATION_ROWS = 2_000
"""Maximum number of rows that the strength of the regularization is chosen on."""
MAX_FEATURES = 50_000
"""Maximum number of n-grams; the most frequent ones are used."""
MAX_ITERATIONS = 200
"""Maximum number of iterations of a logistic regression."""
STRENGTHS = (100.0, 10.0, 1.0, 0.1, 0.01)
"""Strengths of L2 regularization, strongest first: `alpha` of a ridge regression, 1 / `C` of a logistic regression."""
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


def evaluate_baselines(
    task: Task, train: Rows, validation: Rows, test: Rows, embed: Embed
) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Evaluate simple baselines on `test`: `majority`, `tfidf`, `overlap` and `frozen`.

    `majority` predicts the most frequent label or text, or the mean in a regression task. `tfidf` is logistic
    regression on TF-IDF of one or two words, or of one to three characters (see `is_written_without_spaces`). In a
    regression task it is ridge regression, and in a generative task the text of the nearest training row. `overlap`
    adds features of the overlap of two texts to `tfidf`; it exists for classification and regression tasks with two
    text columns. `frozen` fits the same models to embeddings of the frozen backbone. With two text columns, whose
    embeddings are u and v, the features are u, v, |u - v| and the elementwise product u · v (Conneau et al. 2017,
    section 3.1). Otherwise, the feature vector is the embedding of the joined texts.

    Every regression is fitted to `train` once for each of `STRENGTHS`. The one with the highest mean of the task's
    metrics on `validation` is evaluated; of equal ones, the one with the strongest regularization.

    A baseline that has nothing to work with is left out, for example if all training rows have the same label or no
    text has a word.

    Args:
        task: the task.
        train: rows that the baselines are fitted to.
        validation: rows that the strength of the regularization is chosen on.
        test: rows that the baselines are evaluated on.
        embed: computes the backbone's embeddings of texts, [texts, d].

    Returns:
        baseline → metric → percent, and a note for each baseline that is left out.
    """
    splits = [train, validation, test]
    labels = [[task.read_label(row) for row in rows] for rows in splits]
    common = _find_common(task, labels[0])
    scores = {"majority": _score(task, labels[2], [common] * len(test))}
    notes: dict[str, str] = {}
    for name, make_features in _list_features(task, splits, embed).items():
        try:
            if len(set(labels[0])) == 1:
                raise ValueError("all training rows have the same answer")
            features = make_features()
            _check_spread(features[0])
            with threadpool_limits(1):  # the result must not depend on the number of threads
                scores[name] = _score(task, labels[2], _predict(task, features, labels))
        except ValueError as error:  # of this module, or of scikit-learn
            notes[name] = f"left out, because {first_line(error).rstrip('.')}"
    return scores, notes


def evaluate_all_baselines(tasks: Mapping[str, Task], rows: Path, embed: Embed, seed: int) -> dict[str, dict[str, Any]]:
    """Evaluate the baselines of every task on its test split.

    Args:
        tasks: the tasks by name.
        rows: the folder of preprocessed rows.
        embed: computes the backbone's embeddings of texts, [texts, d].
        seed: determines which rows are used of a split with more than `MAX_TRAIN_ROWS` or `MAX_VALIDATION_ROWS`.

    Returns:
        task → baseline → metric → percent. The key `notes` of a task has a note for each baseline that is left out
        and for each split of which a sample is used.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, task in track(tasks.items(), "baselines", len(tasks)):
        notes: dict[str, str] = {}
        train = _read_sample(rows, name, "train", MAX_TRAIN_ROWS, seed, notes)
        validation = _read_sample(rows, name, "validation", MAX_VALIDATION_ROWS, seed, notes)
        scores, left_out = evaluate_baselines(task, train, validation, read_rows(rows, name, "test"), embed)
        results[name] = {**scores, "notes": {**notes, **left_out}}
        log.info("%s: %s", name, ", ".join(f"{kind} {result['mean']:.2f}" for kind, result in scores.items()))
        for subject, note in results[name]["notes"].items():
            log.info("%s, %s: %s", name, subject, note)
    return results


def _read_sample(folder: Path, task: str, split: Split, limit: int, seed: int, notes: dict[str, str]) -> Rows:
    """Read the rows of a split, or a random sample of `limit` rows and add a note."""
    file = folder / task / f"{split}.parquet"
    with report_damage(file):
        count = len(open_parquet(file))
    if count <= limit:
        return read_rows(folder, task, split)
    notes[split] = f"a random sample of {limit:,} of the {count:,} rows is used"
    return sample_rows(folder, task, split, limit, seed)


def _find_common(task: Task, labels: Sequence[Any]) -> Any:
    """Return the most frequent label, the lowest of equally frequent ones, or the mean in a regression task."""
    if task.numbers is not None:
        return float(np.mean(labels))
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def _score(task: Task, truths: Sequence[Any], predictions: Sequence[Any]) -> Metrics:
    metrics = task.compute_metrics(truths, predictions)
    return {**metrics, "mean": float(np.mean(list(metrics.values())))}


def _list_features(task: Task, splits: Sequence[Rows], embed: Embed) -> dict[str, Callable[[], Features]]:
    """Return, by baseline, a function that computes its features, and raises ValueError if there are none."""
    columns = [[[str(row[column]) for row in rows] for rows in splits] for column in task.text_columns]
    joined = [[" ".join(texts) for texts in zip(*split, strict=True)] for split in zip(*columns, strict=True)]
    is_pair = len(columns) == 2
    tfidf = functools.cache(lambda: _compute_tfidf(joined))
    functions: dict[str, Callable[[], Features]] = {"tfidf": tfidf}
    if task.answers and is_pair:
        functions["overlap"] = lambda: _append_overlap(tfidf(), columns, is_written_without_spaces(joined[0]))
    functions["frozen"] = lambda: _embed_splits(columns if is_pair else [joined], embed)
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


def _compute_tfidf(texts: Texts) -> Features:
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


def _check_spread(train: Any) -> None:
    """Raise ValueError if all rows of train have the same features."""
    if abs(train.max(axis=0) - train.min(axis=0)).sum() == 0:
        raise ValueError("all training rows have the same features")


def _predict(task: Task, features: Features, labels: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Fit models to train, choose one on validation, and return its predictions for test."""
    train, validation, test = features
    if not task.answers:
        nearest = NearestNeighbors(n_neighbors=1).fit(train).kneighbors(test, return_distance=False)
        return [labels[0][index] for index in nearest[:, 0]]
    models = [_fit(task, train, labels[0], strength) for strength in STRENGTHS]
    best = max(models, key=lambda model: _score(task, labels[1], model.predict(validation).tolist())["mean"])
    predictions: list[Any] = best.predict(test).tolist()
    return predictions


def _fit(task: Task, train: Any, labels: Sequence[Any], strength: float) -> Any:
    """Fit a ridge regression or a logistic regression to train."""
    if task.numbers is not None:
        return Ridge(alpha=strength).fit(train.astype(np.float64, copy=False), labels)  # float32 is too coarse
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of iterations is enough for a baseline
        return LogisticRegression(C=1.0 / strength, max_iter=MAX_ITERATIONS).fit(train, labels)


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
