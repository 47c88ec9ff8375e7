from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet
from reader import HEADS, OPPOSITE_VERBS, judged, read, sentences

from hyperformer.config import DataSettings, EmbeddedSettings, Tasks
from hyperformer.embedded.suite import SUITE, language_rows, rows
from hyperformer.types import HyperFormerError

Row = dict[str, Any]
Sample = Callable[..., list[Row]]
CONF = Path(__file__).resolve().parents[3] / "conf" / "base" / "parameters_tasks.yml"
SPLITS = ("train", "validation", "test")
KINDS = {"person", "animal", "vehicle", "fruit", "instrument", "garment", "tool"}


def texts(row: Row) -> list[str]:
    return [value for key, value in row.items() if key not in ("label", "score")]


def label(row: Row) -> str:
    return str(row.get("label", row.get("score")))


@pytest.mark.parametrize("task", SUITE)
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(task: str) -> None:
    first, again, other = (list(rows(task, "train", 30, seed)) for seed in (5, 5, 6))
    assert first == again
    assert not {tuple(texts(row)) for row in first} & {tuple(texts(row)) for row in other}


@pytest.mark.parametrize("task", SUITE)
def test_labels_come_in_equal_shares_and_rows_once(task: str, sample: Sample) -> None:
    found = sample(task)
    counts = Counter(label(row) for row in found)
    assert len(counts) == {"similarity": 6, "inference": 3}.get(task, 2)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len({tuple(texts(row)) for row in found}) == len(found) == 150


@pytest.mark.parametrize("task", SUITE)
def test_labels_come_in_no_order(task: str, sample: Sample) -> None:
    labels = [label(row) for row in sample(task)]
    expected = sum((count / 150) ** 2 for count in Counter(labels).values())
    same = sum(one == other for one, other in pairwise(labels)) / 149
    assert same == pytest.approx(expected, abs=0.15)


def test_no_sentence_stands_in_two_splits_of_any_tasks(sample: Sample) -> None:
    found = {
        split: {s for task in SUITE for row in sample(task, split) for s in sentences(*texts(row))} for split in SPLITS
    }
    assert all(len(part) > 1500 for part in found.values())
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]


def test_the_texts_of_a_row_differ(sample: Sample) -> None:
    assert all(len(set(texts(row))) == len(texts(row)) for task in SUITE for row in sample(task))


def best_of(groups: Iterable[Counter[str]], all_labels: Counter[str]) -> float:
    """The accuracy, in percent, of the best rule that gives one label inside a group of rows and one outside of it."""
    right = [max(group.values(), default=0) + max((all_labels - group).values(), default=0) for group in groups]
    return 100 * max(right) / all_labels.total()


TOLD_BY_ONE_TEXT = {  # points above the majority that the length of one text may tell: what follows says less
    "inference": 12,
    "entailment": 12,
}


@pytest.mark.parametrize("task", [task for task in SUITE if task not in ("sentiment", "reviews")])
def test_neither_a_word_nor_a_length_tells_the_label(task: str, sample: Sample) -> None:
    found = sample(task, "train", 1500)
    all_labels = Counter(label(row) for row in found)
    majority = 100 * max(all_labels.values()) / len(found)
    with_word: dict[str, Counter[str]] = defaultdict(Counter)
    not_longer: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for row in found:
        words = [text.lower().replace(",", "").replace(".", "").replace("?", "").split() for text in texts(row)]
        for word in {word for part in words for word in part}:
            with_word[word][label(row)] += 1
        for place, part in enumerate(words):
            for length in range(len(part), 50):
                not_longer[str(place), length][label(row)] += 1
    assert best_of(with_word.values(), all_labels) < majority + 6
    assert best_of(not_longer.values(), all_labels) < majority + TOLD_BY_ONE_TEXT.get(task, 6)


PARTS = ("agent", "verb", "patient", "place", "time")


def test_similarity_is_the_number_of_shared_parts(sample: Sample) -> None:
    for row in sample("similarity"):
        one, other = read(row["sentence1"]), read(row["sentence2"])
        assert sum(one[part] == other[part] for part in PARTS) == row["score"]


@pytest.mark.parametrize("task", ["paraphrase", "word_order"])
def test_two_statements_are_equivalent_where_they_say_the_same(task: str, sample: Sample) -> None:
    for row in sample(task, count=300):
        assert (read(row["sentence1"]) == read(row["sentence2"])) == bool(row["label"])


def test_word_order_keeps_the_concepts(sample: Sample) -> None:
    def concepts(text: str) -> Counter[Any]:
        found = read(text)
        people = (value for part in ("agent", "patient") for value in found[part])
        return Counter([found["verb"], found["place"], found["time"], *people])

    assert all(concepts(row["sentence1"]) == concepts(row["sentence2"]) for row in sample("word_order"))


def says_no_more(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether `one` leaves out, or names the kind of, what `other` says."""
    for part in ("place", "time"):
        if one[part] not in (None, other[part]):
            return False
    for part in ("agent", "patient"):
        _, adjective, noun, plural = one[part]
        if plural != other[part][3] or adjective not in ("", other[part][1]) or noun not in KINDS | {other[part][2]}:
            return False
    return bool(one["verb"] == other["verb"])


def follows(premise: dict[str, Any], hypothesis: dict[str, Any]) -> bool:
    general, special = (premise, hypothesis) if premise["negated"] else (hypothesis, premise)
    return premise["negated"] == hypothesis["negated"] and says_no_more(general, special)


def excludes(premise: dict[str, Any], hypothesis: dict[str, Any]) -> bool:
    if hypothesis["verb"] == OPPOSITE_VERBS.get(premise["verb"]):
        return not premise["negated"] and not hypothesis["negated"]
    return follows(premise, {**hypothesis, "negated": not hypothesis["negated"]})


def test_kinds_are_words_of_the_language() -> None:
    assert set(HEADS) >= KINDS


def test_what_is_entailed_follows_and_what_contradicts_cannot_be(sample: Sample) -> None:
    negated = Counter[tuple[int, bool]]()
    for row in sample("inference", count=600):
        premise, hypothesis = read(row["premise"]), read(row["hypothesis"])
        assert (row["label"] == 0) == follows(premise, hypothesis), row
        assert (row["label"] == 2) == excludes(premise, hypothesis), row
        negated[row["label"], premise["negated"] or hypothesis["negated"]] += 1
    assert all(negated[relation, True] > 40 for relation in range(3))


def test_support_is_inference_in_two_words(sample: Sample) -> None:
    for row in sample("support"):
        premise, hypothesis = read(row["premise"]), read(row["hypothesis"])
        assert row["label"] == ("entails" if follows(premise, hypothesis) else "neutral")


def test_an_entailed_statement_follows_from_one_of_two_sentences(sample: Sample) -> None:
    for row in sample("entailment"):
        told = [read(text) for text in sentences(row["sentence1"])]
        hypothesis = read(row["sentence2"])
        assert len(told) == 2
        assert any(follows(premise, hypothesis) for premise in told) == (row["label"] == 0)


def test_a_yes_no_question_is_answered_by_the_statement_that_it_asks_for(sample: Sample) -> None:
    for row in sample("yes_no"):
        asked = read(row["question"])
        told = [read(text) for text in sentences(row["passage"])]
        answers = [not found["negated"] for found in told if {**found, "negated": False} == asked]
        assert answers == [bool(row["label"])]
        assert len(told) == 3


def test_sentiment_is_what_the_sentence_finds(sample: Sample) -> None:
    assert all(judged(row["sentence"]) == bool(row["label"]) for row in sample("sentiment", count=400))


def test_a_review_is_good_where_most_of_its_three_opinions_are(sample: Sample) -> None:
    for row in sample("reviews"):
        opinions = [judged(text) for text in sentences(row["text"])]
        assert len(opinions) == 3
        assert (sum(opinions) >= 2) == bool(row["label"])


def test_acceptable_sentences_can_be_read(sample: Sample) -> None:
    assert all(read(row["sentence"])["verb"] for row in sample("acceptability") if row["label"] == 1)


SETTINGS = EmbeddedSettings(train=12, small_train=5, validation=4, test=6)


def shipped() -> Tasks:
    return Tasks.model_validate(yaml.safe_load(CONF.read_text(encoding="utf-8"))["tasks"])


def test_rows_of_every_shipped_task_are_written_by_split(tmp_path: Path) -> None:
    tasks = shipped()
    language_rows(tasks, DataSettings(source="embedded"), SETTINGS, seed=1)(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == set(tasks.root)
    for name in tasks.root:
        counts = {split: parquet.read_metadata(tmp_path / name / f"{split}.parquet").num_rows for split in SPLITS}
        assert counts == {"train": 5 if name == "entailment" else 12, "validation": 4, "test": 6}
    assert parquet.read_table(tmp_path / "sentiment/test.parquet").to_pylist() == list(rows("sentiment", "test", 6, 1))


def a_task(**source: str) -> Tasks:
    described = {
        "text": "{sentence}",
        "kind": "classification",
        "label_column": "label",
        "labels": {0: "a", 1: "b"},
        "metrics": ["accuracy"],
        "source": source,
    }
    return Tasks.model_validate({"mine": described})


def test_a_task_may_name_the_part_of_the_suite_that_it_takes(tmp_path: Path) -> None:
    language_rows(a_task(name="reviews"), DataSettings(source="embedded"), SETTINGS, seed=0)(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["reviews"]


def test_a_task_with_rows_of_its_own_is_left_alone(tmp_path: Path) -> None:
    language_rows(a_task(path="somewhere"), DataSettings(source="embedded"), SETTINGS, seed=0)(tmp_path)
    language_rows(a_task(), DataSettings(source="somewhere"), SETTINGS, seed=0)(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_the_suite_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(HyperFormerError, match="the embedded language has no 'mine', expected one of acceptability"):
        language_rows(a_task(), DataSettings(source="embedded"), SETTINGS, seed=0)
