from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from reader import OPPOSITE_VERBS, parse, parse_opinion, split_sentences

from hyperformer.core.text import join_source
from hyperformer.embedded.corpus import draw_corpus, draw_pairs
from hyperformer.embedded.objectives import CHEER, GLOOM, Pair
from hyperformer.embedded.suite import SUITE

CONF = Path(__file__).resolve().parents[3] / "conf"
Pairs = dict[str, list[tuple[tuple[str, ...], str]]]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return list(draw_corpus(3000, 0))


@pytest.fixture(scope="module")
def all_pairs() -> list[Pair]:
    return list(draw_pairs(3000, 0))


@pytest.fixture(scope="module")
def pairs(all_pairs: list[Pair]) -> Pairs:
    """Return prompt word → (texts, target); the prompt of documents is empty."""
    by_prompt: Pairs = defaultdict(list)
    for pair in all_pairs:
        by_prompt[pair.prompt].append((pair.texts, pair.target))
    return by_prompt


def test_the_same_seed_gives_the_same_text_and_another_seed_other_text() -> None:
    first, again, other = (list(draw_corpus(60, seed)) for seed in (3, 3, 4))
    assert first == again
    assert len(first) == 60
    assert len({row["source"] for row in first} & {row["source"] for row in other}) <= 1


def test_documents_have_no_target_and_pairs_have_one(pairs: Pairs) -> None:
    assert {
        "",
        "link",
        "infer",
        "ask",
        "reply",
        "common",
        "unlike",
        "confirm",
        "simply",
        "turn",
        "mend",
        "spot",
        "react",
    } <= pairs.keys()
    assert min(map(len, pairs.values())) > 15
    assert all((target == "") == (prompt == "") for prompt, group in pairs.items() for _, target in group)


def test_no_sentence_is_in_a_validation_or_test_row(
    all_pairs: list[Pair], sample: Callable[..., list[dict[str, Any]]]
) -> None:
    pretraining = {
        sentence for pair in all_pairs for text in [*pair.texts, pair.target] for sentence in split_sentences(text)
    }
    evaluation = {
        sentence
        for task in SUITE
        for split in ("validation", "test")
        for row in sample(task, split)
        for key, value in row.items()
        if key not in ("label", "score")
        for sentence in split_sentences(value)
    }
    assert min(len(pretraining), len(evaluation)) > 3000
    assert not pretraining & evaluation


def test_a_row_has_its_texts_between_slashes_or_after_field_names(
    rows: list[dict[str, str]], all_pairs: list[Pair]
) -> None:
    formats: Counter[str] = Counter()
    for row, pair in zip(rows, all_pairs, strict=True):
        assert row["target"] == pair.target
        rest = row["source"].removeprefix(pair.prompt)
        named = re.fullmatch(" ?" + " ".join(rf"[a-z]{{3,9}}\d?: {re.escape(text)}" for text in pair.texts), rest)
        plain = rest == f"{': ' if pair.prompt else ''}{(' / ' if pair.prompt else ' ').join(pair.texts)}"
        assert plain != bool(named), row
        formats["named" if named else "plain"] += 1
    assert min(formats.values()) > 1300


def test_no_answer_of_the_shipped_tasks_is_a_target(rows: list[dict[str, str]]) -> None:
    tasks = yaml.safe_load((CONF / "base/parameters_tasks.yml").read_text(encoding="utf-8"))["tasks"]
    answers = {text for task in tasks.values() for text in (task.get("labels") or {}).values()}
    answers |= {str(number) for number in range(6)}
    assert len(answers) >= 20
    assert not answers & {row["target"].lower().rstrip(".") for row in rows}


def test_no_template_of_a_shipped_task_is_in_the_text(rows: list[dict[str, str]]) -> None:
    files = [file for file in CONF.rglob("parameters*.yml") if "local" not in file.parts]
    blocks = [yaml.safe_load(file.read_text(encoding="utf-8")).get("tasks") or {} for file in files]
    templates = {join_source(task["text"]) for block in blocks for task in block.values()}
    field_names = {
        word for template in templates for word in re.sub(r"\{\w+\}", " ", template).split() if word.endswith(":")
    }
    assert {"sentence:", "sentence1:", "premise:", "question:"} <= field_names
    tokens = Counter(token for row in rows for token in f"{row['source']} {row['target']}".lower().split())
    assert not field_names & set(tokens)


def test_a_link_says_whether_two_statements_mean_the_same(pairs: Pairs) -> None:
    for (first, second), target in pairs["link"]:
        assert target == ("namely" if parse(first) == parse(second) else "instead")


def test_an_impossible_statement_negates_or_opposes_its_premise(pairs: Pairs) -> None:
    targets = Counter(target for _, target in pairs["infer"])
    assert targets.keys() == {"therefore", "perhaps", "impossible"}
    single = [(first, second, target) for (first, second), target in pairs["infer"] if len(split_sentences(first)) == 1]
    assert 0.5 < len(single) / len(pairs["infer"]) < 0.9
    for first, second, target in single:
        premise, hypothesis = parse(first), parse(second)
        opposed = OPPOSITE_VERBS.get(premise["verb"]) == hypothesis["verb"]
        if target == "therefore":
            assert premise["negated"] == hypothesis["negated"]
            assert premise["verb"] == hypothesis["verb"]
        elif target == "impossible":
            assert opposed != (premise["negated"] != hypothesis["negated"])
        else:
            assert not opposed


def test_common_parts_are_listed_in_basic_words(pairs: Pairs) -> None:
    for texts, target in pairs["common"]:
        first, second = map(parse, texts)
        shared = []
        for part in ("agent", "patient", "place", "time", "verb"):
            if first[part] == second[part] and first[part] is not None:
                shared.append(first[part][2] if part in ("agent", "patient") else first[part])
        assert target == (", ".join(shared) or "nothing")


def test_a_simplified_statement_means_the_same(pairs: Pairs) -> None:
    for (text,), target in pairs["simply"]:
        assert parse(target) == parse(text)
        assert "," not in target
        assert " by " not in target


def test_a_confirmed_question_is_stated_and_not_denied(pairs: Pairs) -> None:
    for (statements, question), target in pairs["confirm"]:
        event = parse(question)
        matches = [
            stated for stated in map(parse, split_sentences(statements)) if {**stated, "negated": False} == event
        ]
        assert [stated["negated"] for stated in matches] == [target == "denied"]


def test_a_corrected_sentence_can_be_parsed(pairs: Pairs) -> None:
    faulty = [text != target for (text,), target in pairs["mend"]]
    assert 0.3 < sum(faulty) / len(faulty) < 0.7
    assert all(parse(target)["verb"] for _, target in pairs["mend"])


def test_a_spotted_word_is_in_the_sentence_or_missing_at_its_end(pairs: Pairs) -> None:
    targets = Counter(target for _, target in pairs["spot"])
    assert 0.3 < targets["nothing"] / targets.total() < 0.7
    for (text,), target in pairs["spot"]:
        tokens = re.sub(r"[.,]", "", text.lower()).split()
        assert target in ("nothing", "end") or target in tokens
        assert target != "nothing" or parse(text)["verb"]


def test_reactions_are_cheerful_to_good_opinions_only(pairs: Pairs) -> None:
    for (text,), target in pairs["react"]:
        assert target == (CHEER if parse_opinion(text) else GLOOM)


def test_a_reply_is_in_the_statement_or_unknown(pairs: Pairs) -> None:
    for (question, statement), target in pairs["reply"]:
        event = parse(statement)
        if target == "unknown":
            continue
        if question.startswith(("Where", "When")):
            assert target == event["place" if question.startswith("Where") else "time"]
        else:
            people = [" ".join(part[:3]).split() for part in (event["agent"], event["patient"])]
            assert any(person[-1][:3] == target.split()[-1][:3] for person in people)
