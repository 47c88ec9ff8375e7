"""Baselines are fair to compare a model with, and whatever the rows are, they end no run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray
from toys import make_pair_task

from hyperformer import baselines
from hyperformer.baselines import all_tasks, features, models
from hyperformer.data.storage import write_rows
from hyperformer.tasks import Task

WORDS = [a + b for a in "bdfgklmn" for b in ("ado", "ile", "une", "ost", "err")]
SAME_ANSWER = "left out, because all training rows have the same answer"
SAME_FEATURES = "left out, because all training rows have the same features"
Results = tuple[dict[str, dict[str, float]], dict[str, str]]


def make_regression_task(**changes: Any) -> Task:
    return make_pair_task(kind="regression", minimum=0, maximum=5, step=1, metrics=["pearson", "spearman"], **changes)


def make_generation_task() -> Task:
    return make_pair_task(kind="generation", label_column="second", text="say {first}", metrics=["exact_match"])


def make_pairs(count: int, seed: int, regression: bool = False) -> Dataset:
    """Make pairs of texts of five words; the label is how many they share: 0 or 4, or any number for regression."""
    rng = Random(seed)
    rows = []
    for _ in range(count):
        drawn = rng.sample(WORDS, 10)
        share = rng.randrange(6) if regression else rng.choice((0, 4))
        second = drawn[:share] + drawn[5 : 10 - share]
        rng.shuffle(second)
        label = float(share) if regression else int(share > 0)
        rows.append({"first": " ".join(drawn[:5]), "second": " ".join(second), "label": label})
    return Dataset.from_list(rows)


def make_rows(texts: Sequence[str], labels: Sequence[Any]) -> Dataset:
    """Make rows of one text."""
    return Dataset.from_dict({"first": list(texts), "label": list(labels)})


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Count each word of a text."""
    return np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32)


def embed_randomly(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)


def evaluate(task: Task, train: Dataset, test: Dataset, embed: features.Embed = embed) -> Results:
    """Evaluate baselines on test, with the training rows as validation rows."""
    return evaluate_test(task, train, train, test, embed)


def evaluate_test(task: Task, *rows: Any) -> Results:
    """Evaluate baselines on test."""
    scores, notes = baselines.evaluate_baselines(task, *rows)
    return scores["test"], notes


# Scores


def test_baselines_with_overlap_see_what_words_alone_do_not() -> None:
    results, notes = evaluate_test(make_pair_task(), make_pairs(300, 1), make_pairs(60, 3), make_pairs(200, 2), embed)
    assert notes == {}
    assert list(results) == ["majority", "tfidf", "overlap", "frozen"]
    assert results["overlap"]["accuracy"] > 95.0
    assert results["frozen"]["accuracy"] > 95.0  # of the products of two embeddings
    assert results["tfidf"]["accuracy"] < 75.0


def test_baselines_of_a_regression_task_see_overlap_too() -> None:
    splits = [make_pairs(count, seed, regression=True) for count, seed in ((300, 1), (60, 3), (200, 2))]
    results, notes = evaluate_test(make_regression_task(), *splits, embed)
    assert notes == {}
    assert results["majority"] == {"pearson": 0.0, "spearman": 0.0, "mean": 0.0}
    assert results["overlap"]["pearson"] > 90.0
    assert results["overlap"]["mean"] > results["tfidf"]["mean"] + 20.0


def test_baselines_of_one_text_column_have_no_overlap() -> None:
    results, notes = evaluate(make_pair_task(text="{first}"), make_pairs(40, 1), make_pairs(20, 2))
    assert list(results) == ["majority", "tfidf", "frozen"]
    assert notes == {}


def test_the_majority_baseline_predicts_the_most_frequent_training_label() -> None:
    train = make_rows([f"w{i}" for i in range(10)], [int(i < 3) for i in range(10)])
    test = make_rows([f"w{i}" for i in range(10)], [int(i < 9) for i in range(10)])
    results, _ = evaluate(make_pair_task(text="{first}"), train, test)
    assert results["majority"] == {"accuracy": 10.0, "mean": 10.0}


def test_baselines_of_a_generation_task_are_the_most_frequent_text_and_that_of_the_nearest_row() -> None:
    train = Dataset.from_list([{"first": f"w{i} {WORDS[i]}", "second": "same" if i < 4 else f"t{i}"} for i in range(9)])
    test = Dataset.from_list([{"first": f"w{i} y", "second": f"t{i}"} for i in range(4, 9)])
    results, notes = evaluate(make_generation_task(), train, test)
    assert notes == {}
    assert {kind: result["mean"] for kind, result in results.items()} == {
        "majority": 0.0,
        "tfidf": 100.0,
        "frozen": 0.0,
    }


def test_baselines_give_the_same_numbers_again() -> None:
    first, second = (evaluate(make_pair_task(), make_pairs(60, 1), make_pairs(40, 2)) for _ in range(2))
    assert first == second


# Scripts without spaces

CLASSES = {
    "Chinese": ("这部电影很好看我喜欢", "这部电影很难看我讨厌"),
    "Japanese": ("この映画はとても面白い", "この映画はとても退屈だ"),
    "Thai": ("หนังเรื่องนี้สนุกมาก", "หนังเรื่องนี้น่าเบื่อ"),
    "emoji": ("😀😁😂", "😡😢😭"),
}


def make_unspaced(script: str, count: int, seed: int) -> Dataset:
    """Make texts of one script: the text of the label, between random characters."""
    rng = Random(seed)
    labels = [i % 2 for i in range(count)]
    texts = [f"{CLASSES[script][n]}{''.join(rng.choices(CLASSES[script][0], k=3))}" for n in labels]
    return make_rows([f"{rng.choice(CLASSES[script][1])}{text}" for text in texts], labels)


@pytest.mark.parametrize("script", CLASSES)
def test_a_script_without_spaces_is_read_by_its_characters(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = make_unspaced(script, 40, 1), make_unspaced(script, 40, 2)
    assert features.is_written_without_spaces(train["first"][:])
    results, _ = evaluate(make_pair_task(text="{first}"), train, test)
    assert results["tfidf"]["accuracy"] > 95.0
    monkeypatch.setattr(features, "is_written_without_spaces", lambda texts: False)
    results, _ = evaluate(make_pair_task(text="{first}"), train, test)
    of_words = results.get("tfidf", results["majority"])  # emoji alone are no words
    assert of_words["accuracy"] <= 60.0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a plain text", "and one with an emoji 😀"], False),
        (["हिन्दी के शब्दों के बीच जगह होती है"], False),
        (["한국어는 띄어쓰기를 한다", "كلمات عربية"], False),
        (["1 2 3"], False),
        (["我的 iPhone 无法连接 WiFi"], True),
        (["!!! ???"], True),
        (["", " "], True),
    ],
)
def test_n_grams_are_of_characters_where_a_fifth_of_the_letters_have_no_spaces(
    texts: list[str], expected: bool
) -> None:
    assert features.is_written_without_spaces(texts) is expected


def test_the_overlap_of_two_texts_without_spaces_is_that_of_their_characters() -> None:
    characters = [chr(0x4E00 + n) for n in range(60)]

    def make(count: int, seed: int) -> Dataset:
        rng = Random(seed)
        rows = []
        for number in range(count):
            drawn = rng.sample(characters, 12)
            second = drawn[1:6] + drawn[6:7] if number % 2 else drawn[6:]
            rows.append({"first": "".join(drawn[:6]), "second": "".join(second), "label": number % 2})
        return Dataset.from_list(rows)

    results, _ = evaluate(make_pair_task(), make(100, 1), make(60, 2), embed_randomly)
    assert results["overlap"]["accuracy"] > 95.0


# Regularization


def make_noisy(count: int, seed: int) -> tuple[Dataset, dict[str, NDArray[np.float32]]]:
    """Make rows whose embeddings have a weak signal in many dimensions of noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    vectors = rng.normal(size=(count, 300)).astype(np.float32)
    vectors[:, :40] += 0.35 * (2 * labels[:, None] - 1)
    texts = [f"{seed} {n}" for n in range(count)]
    return make_rows(texts, labels.tolist()), dict(zip(texts, vectors, strict=True))


def test_the_strength_of_the_regularization_is_that_which_is_best_on_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (train, a), (validation, b), (test, c) = (make_noisy(count, seed) for count, seed in ((100, 1), (200, 2), (400, 3)))
    vectors = {**a, **b, **c}

    def score(validation: Dataset, test: Dataset, *strengths: float) -> float:
        monkeypatch.setattr(models, "STRENGTHS", strengths)
        task = make_pair_task(text="{first}")
        return evaluate_test(task, train, validation, test, lambda texts: np.stack([vectors[text] for text in texts]))[
            0
        ]["frozen"]["mean"]

    strengths = models.STRENGTHS
    on_validation = {strength: score(validation, validation, strength) for strength in strengths}
    best = max(strengths, key=on_validation.__getitem__)  # the first, which is the strongest, of equal ones
    assert on_validation[best] > on_validation[strengths[-1]]
    assert score(validation, test, *strengths) == score(validation, test, best)


def test_of_equally_good_strengths_the_strongest_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, predict = [], models._fit

    def fit(task: Task, train: Any, labels: Sequence[Any], strength: float) -> Any:
        model = predict(task, train, labels, strength)
        model.predict, original = lambda features: fitted.append(strength) or original(features), model.predict
        return model

    monkeypatch.setattr(models, "_fit", fit)
    rows = make_rows(["good film", "bad film"] * 20, [1, 0] * 20)
    evaluate(make_pair_task(text="{first}"), rows, rows, lambda texts: np.zeros((len(texts), 1)))
    assert fitted == [*models.STRENGTHS, models.STRENGTHS[0]]  # all on validation, and one on test


# Rows with which a baseline cannot do anything


@pytest.mark.parametrize("task", [make_pair_task(text="{first}"), make_regression_task(text="{first}")])
def test_one_answer_in_train_leaves_the_majority(task: Task) -> None:
    for count in (1, 4):
        results, notes = evaluate(task, make_rows(WORDS[:count], [1] * count), make_rows(WORDS[:4], [0, 1, 0, 1]))
        assert list(results) == ["majority"]
        assert notes == {"tfidf": SAME_ANSWER, "frozen": SAME_ANSWER}


def test_a_label_that_only_validation_and_test_have_is_never_predicted() -> None:
    task = make_pair_task(text="{first}", labels={0: "a", 1: "b", 2: "c"}, metrics=["accuracy", "f1", "matthews"])
    train, other = make_rows(["x y", "z w"] * 5, [0, 1] * 5), make_rows(["x y", "z w", "v"], [0, 1, 2])
    results, notes = evaluate_test(task, train, other, other, embed_randomly)
    assert results["tfidf"]["accuracy"] == pytest.approx(200 / 3)
    assert notes == {}


@pytest.mark.parametrize("texts", [["", "", "", ""], [" ", "  ", " ", " "], ["x", "x", "x", "x"]])
@pytest.mark.parametrize("regression", [False, True])
def test_texts_without_a_difference_leave_words_out(texts: list[str], regression: bool) -> None:
    task = make_regression_task(text="{first}") if regression else make_pair_task(text="{first}")
    results, notes = evaluate(task, make_rows(texts, [0, 1, 0, 1]), make_rows(["new"], [1]), embed_randomly)
    assert list(results) == ["majority", "frozen"]
    assert list(notes) == ["tfidf"]
    assert notes["tfidf"].startswith("left out, because ")


@pytest.mark.parametrize("texts", [["7", "8", "7", "8"], ["a", "i", "a", "i"], ["!", "?", "!", "?"], ["😀", "😁"] * 2])
def test_texts_of_single_characters_are_read(texts: list[str]) -> None:
    results, notes = evaluate(
        make_pair_task(text="{first}"), make_rows(texts, [0, 1] * 2), make_rows(texts, [0, 1] * 2)
    )
    assert results["tfidf"]["accuracy"] == 100.0
    assert notes == {"frozen": SAME_FEATURES}


def test_words_that_occur_once_in_many_rows_leave_words_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "RARE_ROWS", 5)
    rows = make_rows(WORDS[:6], [0, 1] * 3)
    results, notes = evaluate(make_pair_task(text="{first}"), rows, rows)
    assert notes == {"tfidf": "left out, because no word occurs in two training rows"}
    assert list(results) == ["majority", "frozen"]


def test_pairs_without_words_leave_overlap_out_too() -> None:
    rows = Dataset.from_dict({"first": [""] * 4, "second": [""] * 4, "label": [0, 1, 0, 1]})
    results, notes = evaluate(make_pair_task(), rows, rows)
    assert list(results) == ["majority"]
    assert list(notes) == ["tfidf", "overlap", "frozen"]


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30])
def test_embeddings_that_are_no_numbers_are_left_out(number: float) -> None:
    def embed_some(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = embed_randomly(texts)
        vectors[-1, 3] = number
        return vectors

    results, notes = evaluate(make_pair_task(), make_pairs(20, 1), make_pairs(20, 2), embed_some)
    assert list(results) == ["majority", "tfidf", "overlap"]
    assert notes == {"frozen": "left out, because the backbone's embeddings have NaN or infinite values"}


def test_constant_numbers_in_validation_and_test_are_no_error() -> None:
    train = make_rows(WORDS[:8], [0.0, 1.0, 2.0, 3.0] * 2)
    other = make_rows(WORDS[:3], [2.5] * 3)
    results, notes = evaluate_test(make_regression_task(text="{first}"), train, other, other, embed)
    assert {result["mean"] for result in results.values()} == {0.0}
    assert notes == {}


def test_generation_with_one_answer_or_without_words_leaves_the_most_frequent_text() -> None:
    task = make_generation_task()
    same = Dataset.from_dict({"first": ["a b", "c d"], "second": ["x", "x"]})
    empty = Dataset.from_dict({"first": ["", ""], "second": ["x", "y"]})
    for train in (same, empty):
        results, notes = evaluate(task, train, same)
        assert results == {"majority": {"exact_match": 100.0, "mean": 100.0}}
        assert list(notes) == ["tfidf", "frozen"]


def test_only_the_most_frequent_n_grams_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MAX_FEATURES", 3)
    train = make_rows(["good film", "bad film"] * 5 + ["rare", "words"], [1, 0] * 6)
    assert [part.shape[1] for part in features.compute_tfidf([train["first"][:]] * 3)] == [3, 3, 3]


# All tasks


def write_splits(folder: Path, train: int) -> Path:
    rows = {"train": make_pairs(train, 1), "validation": make_pairs(20, 2), "test": make_pairs(40, 3)}
    write_rows({"t": rows})(folder / "rows")
    return folder / "rows"


def test_baselines_of_all_tasks_read_their_rows(tmp_path: Path) -> None:
    rows = write_splits(tmp_path, 60)
    scores, notes = baselines.evaluate_baselines(
        make_pair_task(), make_pairs(60, 1), make_pairs(20, 2), make_pairs(40, 3), embed
    )
    assert baselines.evaluate_all_baselines({"t": make_pair_task()}, rows, embed, seed=0) == {
        "validation": {"t": scores["validation"]},
        "test": {"t": scores["test"]},
        "notes": {"t": notes},
    }


def test_of_many_rows_a_sample_is_used_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_tasks, "MAX_TRAIN_ROWS", 50)
    monkeypatch.setattr(all_tasks, "MAX_VALIDATION_ROWS", 10)
    rows = write_splits(tmp_path, 1200)
    counts = []

    def count(texts: Sequence[str]) -> NDArray[np.float32]:
        counts.append(len(texts))
        return embed(texts)

    first = baselines.evaluate_all_baselines({"t": make_pair_task()}, rows, count, seed=0)
    assert counts == [50 + 10 + 40] * 2
    assert first["notes"]["t"] == {
        "train": "a random sample of 50 of the 1,200 rows is used",
        "validation": "a random sample of 10 of the 20 rows is used",
    }
    assert baselines.evaluate_all_baselines({"t": make_pair_task()}, rows, embed, seed=0) == first
    assert baselines.evaluate_all_baselines({"t": make_pair_task()}, rows, embed, seed=1) != first


def test_the_majority_uses_every_row_of_sampled_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_tasks, "MAX_TRAIN_ROWS", 1)
    monkeypatch.setattr(all_tasks, "MAX_VALIDATION_ROWS", 1)
    labels = {"train": [1, 1, 0], "validation": [1, 0, 0, 0], "test": [1, 1, 0, 0]}
    write_rows({"t": {split: make_rows(WORDS[: len(n)], n) for split, n in labels.items()}})(tmp_path / "rows")
    task = make_pair_task(text="{first}")
    for seed in range(3):
        results = baselines.evaluate_all_baselines({"t": task}, tmp_path / "rows", embed, seed)
        assert results["validation"]["t"]["majority"] == {"accuracy": 25.0, "mean": 25.0}
        assert results["test"]["t"]["majority"] == {"accuracy": 50.0, "mean": 50.0}


def test_every_baseline_is_scored_on_validation_and_test() -> None:
    scores, _ = baselines.evaluate_baselines(
        make_pair_task(), make_pairs(300, 1), make_pairs(60, 3), make_pairs(200, 2), embed
    )
    assert list(scores) == ["validation", "test"]
    assert list(scores["validation"]) == list(scores["test"]) == ["majority", "tfidf", "overlap", "frozen"]
    assert scores["validation"]["overlap"]["accuracy"] > 95.0
    swapped, _ = baselines.evaluate_baselines(
        make_pair_task(), make_pairs(300, 1), make_pairs(60, 3), make_pairs(60, 3), embed
    )
    assert swapped["test"] == swapped["validation"] == scores["validation"]


def test_few_training_rows_are_embedded_and_the_note_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_EMBEDDED_ROWS", 30)
    texts: list[str] = []

    def record(batch: Sequence[str]) -> NDArray[np.float32]:
        texts.extend(batch)
        return embed(batch)

    train = make_pairs(100, 1)
    rows = train, make_pairs(10, 2), make_pairs(20, 3)
    scores, notes = baselines.evaluate_baselines(make_pair_task(), *rows, record)
    assert notes == {"frozen": "fitted to 30 of the 100 rows"}
    assert list(scores["test"]) == ["majority", "tfidf", "overlap", "frozen"]
    assert len(texts) == 2 * (30 + 10 + 20)
    indices = [train["first"][:].index(text) for text in texts[:30]]
    assert (indices[0], indices[-1]) == (0, 99)
    assert {after - before for before, after in pairwise(indices)} == {3, 4}
