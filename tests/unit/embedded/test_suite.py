from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet
from reader import HEADS, OPPOSITE_VERBS, parse, parse_opinion, split_sentences

from hyperformer.core.errors import HyperFormerError
from hyperformer.embedded.suite import SUITE, draw_rows, write_language_rows
from hyperformer.settings import DataSettings, EmbeddedSettings, Tasks

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
    first, again, other = (list(draw_rows(task, "train", 30, seed)) for seed in (5, 5, 6))
    assert first == again
    assert not {tuple(texts(row)) for row in first} & {tuple(texts(row)) for row in other}


@pytest.mark.parametrize("task", SUITE)
def test_labels_are_balanced_and_rows_are_unique(task: str, sample: Sample) -> None:
    drawn = sample(task)
    counts = Counter(label(row) for row in drawn)
    assert len(counts) == {"similarity": 6, "inference": 3}.get(task, 2)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len({tuple(texts(row)) for row in drawn}) == len(drawn) == 150


@pytest.mark.parametrize("task", SUITE)
def test_labels_are_in_random_order(task: str, sample: Sample) -> None:
    labels = [label(row) for row in sample(task)]
    expected = sum((count / 150) ** 2 for count in Counter(labels).values())
    same = sum(current == following for current, following in pairwise(labels)) / 149
    assert same == pytest.approx(expected, abs=0.15)


def test_no_sentence_is_in_two_splits_of_any_tasks(sample: Sample) -> None:
    by_split = {
        split: {s for task in SUITE for row in sample(task, split) for s in split_sentences(*texts(row))}
        for split in SPLITS
    }
    assert all(len(texts) > 1500 for texts in by_split.values())
    assert not by_split["train"] & by_split["validation"]
    assert not by_split["train"] & by_split["test"]
    assert not by_split["validation"] & by_split["test"]


def test_the_texts_of_a_row_differ(sample: Sample) -> None:
    assert all(len(set(texts(row))) == len(texts(row)) for task in SUITE for row in sample(task))


def best_accuracy(groups: Iterable[Counter[str]], all_labels: Counter[str]) -> float:
    """Return the accuracy, in percent, of the best rule that predicts a label inside a group and another outside."""
    right = [max(group.values(), default=0) + max((all_labels - group).values(), default=0) for group in groups]
    return 100 * max(right) / all_labels.total()


LENGTH_MARGINS = {  # percentage points above the majority that a length may reach: entailed texts are shorter
    "inference": 12,
    "entailment": 12,
}


@pytest.mark.parametrize("task", [task for task in SUITE if task not in ("sentiment", "reviews")])
def test_neither_a_word_nor_a_length_predicts_the_label(task: str, sample: Sample) -> None:
    drawn = sample(task, "train", 1500)
    all_labels = Counter(label(row) for row in drawn)
    majority = 100 * max(all_labels.values()) / len(drawn)
    with_word: dict[str, Counter[str]] = defaultdict(Counter)
    not_longer: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for row in drawn:
        tokens = [text.lower().replace(",", "").replace(".", "").replace("?", "").split() for text in texts(row)]
        for word in {word for text_tokens in tokens for word in text_tokens}:
            with_word[word][label(row)] += 1
        for index, text_tokens in enumerate(tokens):
            for length in range(len(text_tokens), 50):
                not_longer[str(index), length][label(row)] += 1
    assert best_accuracy(with_word.values(), all_labels) < majority + 6
    assert best_accuracy(not_longer.values(), all_labels) < majority + LENGTH_MARGINS.get(task, 6)


PARTS = ("agent", "verb", "patient", "place", "time")


def test_similarity_is_the_number_of_shared_parts(sample: Sample) -> None:
    for row in sample("similarity"):
        first, second = parse(row["sentence1"]), parse(row["sentence2"])
        assert sum(first[part] == second[part] for part in PARTS) == row["score"]


@pytest.mark.parametrize("task", ["paraphrase", "word_order"])
def test_two_statements_are_equivalent_if_they_mean_the_same(task: str, sample: Sample) -> None:
    for row in sample(task, count=300):
        assert (parse(row["sentence1"]) == parse(row["sentence2"])) == bool(row["label"])


def test_word_order_keeps_the_concepts(sample: Sample) -> None:
    def concepts(text: str) -> Counter[Any]:
        event = parse(text)
        people = (value for part in ("agent", "patient") for value in event[part])
        return Counter([event["verb"], event["place"], event["time"], *people])

    assert all(concepts(row["sentence1"]) == concepts(row["sentence2"]) for row in sample("word_order"))


def is_more_general(general: dict[str, Any], special: dict[str, Any]) -> bool:
    """Return whether `general` leaves out parts of `special`, or names their kind, and adds nothing."""
    for part in ("place", "time"):
        if general[part] not in (None, special[part]):
            return False
    for part in ("agent", "patient"):
        _, adjective, noun, plural = general[part]
        if plural != special[part][3] or adjective not in ("", special[part][1]):
            return False
        if noun not in KINDS | {special[part][2]}:
            return False
    return bool(general["verb"] == special["verb"])


def follows(premise: dict[str, Any], hypothesis: dict[str, Any]) -> bool:
    general, special = (premise, hypothesis) if premise["negated"] else (hypothesis, premise)
    return premise["negated"] == hypothesis["negated"] and is_more_general(general, special)


def excludes(premise: dict[str, Any], hypothesis: dict[str, Any]) -> bool:
    if hypothesis["verb"] == OPPOSITE_VERBS.get(premise["verb"]):
        return not premise["negated"] and not hypothesis["negated"]
    return follows(premise, {**hypothesis, "negated": not hypothesis["negated"]})


def test_kinds_are_words_of_the_language() -> None:
    assert set(HEADS) >= KINDS


def test_entailed_hypotheses_follow_and_contradictions_are_excluded(sample: Sample) -> None:
    negated = Counter[tuple[int, bool]]()
    for row in sample("inference", count=600):
        premise, hypothesis = parse(row["premise"]), parse(row["hypothesis"])
        assert (row["label"] == 0) == follows(premise, hypothesis), row
        assert (row["label"] == 2) == excludes(premise, hypothesis), row
        negated[row["label"], premise["negated"] or hypothesis["negated"]] += 1
    assert all(negated[relation, True] > 40 for relation in range(3))


def test_support_is_inference_with_two_labels(sample: Sample) -> None:
    for row in sample("support"):
        premise, hypothesis = parse(row["premise"]), parse(row["hypothesis"])
        assert row["label"] == ("entails" if follows(premise, hypothesis) else "neutral")


def test_an_entailed_statement_follows_from_one_of_two_sentences(sample: Sample) -> None:
    for row in sample("entailment"):
        premises = [parse(text) for text in split_sentences(row["sentence1"])]
        hypothesis = parse(row["sentence2"])
        assert len(premises) == 2
        assert any(follows(premise, hypothesis) for premise in premises) == (row["label"] == 0)


def test_a_yes_no_question_is_answered_by_the_statement_about_its_event(sample: Sample) -> None:
    for row in sample("yes_no"):
        event = parse(row["question"])
        statements = [parse(text) for text in split_sentences(row["passage"])]
        answers = [not stated["negated"] for stated in statements if {**stated, "negated": False} == event]
        assert answers == [bool(row["label"])]
        assert len(statements) == 3


def test_sentiment_is_the_polarity_of_the_sentence(sample: Sample) -> None:
    assert all(parse_opinion(row["sentence"]) == bool(row["label"]) for row in sample("sentiment", count=400))


def test_a_review_is_positive_if_most_of_its_three_opinions_are(sample: Sample) -> None:
    for row in sample("reviews"):
        opinions = [parse_opinion(text) for text in split_sentences(row["text"])]
        assert len(opinions) == 3
        assert (sum(opinions) >= 2) == bool(row["label"])


def test_acceptable_sentences_can_be_parsed(sample: Sample) -> None:
    assert all(parse(row["sentence"])["verb"] for row in sample("acceptability") if row["label"] == 1)


SETTINGS = EmbeddedSettings(train=12, small_train=5, validation=4, test=6)


def load_shipped_tasks() -> Tasks:
    return Tasks.model_validate(yaml.safe_load(CONF.read_text(encoding="utf-8"))["tasks"])


def test_rows_of_every_shipped_task_are_written_by_split(tmp_path: Path) -> None:
    tasks = load_shipped_tasks()
    write_language_rows(tasks, DataSettings(source="embedded"), SETTINGS, seed=1)(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == set(tasks.root)
    for name in tasks.root:
        counts = {split: parquet.read_metadata(tmp_path / name / f"{split}.parquet").num_rows for split in SPLITS}
        assert counts == {"train": 5 if name == "entailment" else 12, "validation": 4, "test": 6}
    assert parquet.read_table(tmp_path / "sentiment/test.parquet").to_pylist() == list(
        draw_rows("sentiment", "test", 6, 1)
    )


def make_task(**source: str) -> Tasks:
    settings = {
        "text": "{sentence}",
        "kind": "classification",
        "label_column": "label",
        "labels": {0: "a", 1: "b"},
        "metrics": ["accuracy"],
        "source": source,
    }
    return Tasks.model_validate({"mine": settings})


def test_a_task_may_name_a_dataset_of_the_suite(tmp_path: Path) -> None:
    write_language_rows(make_task(name="reviews"), DataSettings(source="embedded"), SETTINGS, seed=0)(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["reviews"]


def test_a_task_with_another_source_is_skipped(tmp_path: Path) -> None:
    write_language_rows(make_task(path="somewhere"), DataSettings(source="embedded"), SETTINGS, seed=0)(tmp_path)
    write_language_rows(make_task(), DataSettings(source="somewhere"), SETTINGS, seed=0)(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_dataset_of_the_suite_is_named_with_the_known_ones() -> None:
    with pytest.raises(HyperFormerError, match="the embedded language has no 'mine'; expected one of acceptability"):
        write_language_rows(make_task(), DataSettings(source="embedded"), SETTINGS, seed=0)
