"""What holds of every template, split, batch, trie, text and manifest, and not only of those that a test thought of."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hyperformer import manifest, text
from hyperformer.backbones.trie import trie
from hyperformer.config import DataSettings, Tasks
from hyperformer.data import prepare
from hyperformer.manifest import FORMAT, Manifest
from hyperformer.runtime.files import described
from hyperformer.tasks import make
from hyperformer.training.sampling import Permutations, TaskSampler, task_shares
from hyperformer.types import HyperFormerError

ROOT = Path(__file__).parents[2]
TOKENIZER = Tokenizer.from_file(str(ROOT / "data/06_models/backbone/tokenizer.json"))
TOKENIZER.encode_special_tokens = True

settings.register_profile("project", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("project")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text("abcxyz_", min_size=1, max_size=6)
plain = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=12)


def told(function, *arguments):
    """What a function gives, and what it says where it refuses."""
    try:
        return function(*arguments), ""
    except HyperFormerError as error:
        return None, str(error)


# Templates


@given(st.lists(st.tuples(plain, names), min_size=1, max_size=5), plain, st.data())
def test_a_template_is_its_words_with_the_rows_texts_between(parts, last, data):
    template = "".join(f"{word}{{{name}}}" for word, name in parts) + last
    row = {name: data.draw(texts) for _, name in parts}
    assert text.columns(template) == [name for _, name in parts]
    assert text.render(template, row) == "".join(f"{word}{row[name]}" for word, name in parts) + last


@given(texts)
def test_any_text_is_a_template_or_is_refused_in_one_sentence(template):
    found, said = told(text.columns, template)
    if said:
        assert repr(template) in said
    else:
        assert isinstance(text.render(template, dict.fromkeys(found, "x")), str)


@given(st.dictionaries(names, st.one_of(texts, st.integers(), st.floats(), st.none(), st.booleans(), st.lists(texts))))
def test_any_row_is_rendered_or_refused(row):
    found, said = told(text.render, "{a} and {b}", row)
    assert said or found == f"{row['a']} and {row['b']}"


@given(st.integers(-50, 50), st.integers(1, 40), st.sampled_from([0.1, 0.2, 0.25, 0.5, 1, 2]), st.floats(-100, 100))
def test_a_grid_holds_its_numbers_as_texts_and_the_nearest_is(low, count, step, number):
    found = text.grid(low, low + count * step, step)
    assert len(found) == count + 1
    assert all(float(words) == pytest.approx(value) for words, value in found)
    assert len({words for words, _ in found}) == len(found)
    numbers = [value for _, value in found]
    best = text.nearest(numbers, number)
    assert all(abs(numbers[best] - number) <= abs(other - number) for other in numbers)


@given(st.lists(st.floats(-1e6, 0), min_size=1, max_size=8))
def test_probabilities_are_shares_in_the_order_of_scores(scores):
    found = text.probabilities(scores)
    assert math.isclose(sum(found), 1.0, rel_tol=1e-9)
    assert found[scores.index(max(scores))] == max(found)


# Splits


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 9)), min_size=12, max_size=40),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_splits_share_no_text_lose_no_row_silently_and_depend_on_the_seed_alone(words, validation, test, seed):
    rows = [{"a": f"{letter}{number}", "label": number % 2} for letter, number in words]
    block = {
        "text": "{a}", "kind": "classification", "label_column": "label", "labels": {0: "no", 1: "yes"},
        "metrics": ["accuracy"], "splits": {"validation": f"hold_out_{validation}", "test": f"hold_out_{test}"},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks, source = make(Tasks.model_validate({"t": block})), DataSettings(source=place)
        made, said = told(prepare, tasks, source, Path("unused"), seed)
        if said:
            assert "is also in a later split" in said
            return
        found, counts = made
        split = {name: [row["a"] for row in part] for name, part in found["t"].items()}
        again, _ = prepare(tasks, source, Path("unused"), seed)
        assert {name: [row["a"] for row in part] for name, part in again["t"].items()} == split
    assert not set(split["train"]) & (set(split["validation"]) | set(split["test"]))
    assert not set(split["validation"]) & set(split["test"])
    assert len(split["test"]) == test
    assert set().union(*split.values()) == {row["a"] for row in rows}
    taken = sum(value for part in counts["t"].values() for key, value in part.items() if key != "rows")
    assert sum(map(len, split.values())) + taken == len(rows)


# Batches


@given(st.integers(1, 60), st.integers(0, 3), st.integers(0, 3))
def test_each_pass_over_rows_holds_every_row_once(rows, seed, stream):
    order = Permutations(rows, seed, stream)[np.arange(3 * rows)].reshape(3, rows)
    assert np.sort(order, axis=1).tolist() == [list(range(rows))] * 3


@given(
    st.dictionaries(names, st.integers(1, 10**9), min_size=1, max_size=6),
    st.floats(0.05, 1e6),
    st.data(),
)
def test_shares_are_whole_and_in_the_order_of_rows(rows, temperature, data):
    weight = data.draw(st.floats(0.01, 100))
    shares = task_shares(rows, dict.fromkeys(rows, weight), temperature)
    assert math.isclose(sum(shares.values()), 1.0, rel_tol=1e-9)
    ordered = sorted(rows, key=rows.__getitem__)
    assert all(shares[a] <= shares[b] * (1 + 1e-9) for a, b in pairwise(ordered))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 99), st.integers(1, 25))
def test_a_step_has_its_rows_whenever_it_is_asked_for(rows, batch_size, seed, step):
    shares = list(task_shares(dict(enumerate(rows)), dict.fromkeys(range(len(rows)), 1.0), 10.0).values())
    lengths = [np.full(count, 5) for count in rows]
    whole = TaskSampler(lengths, shares, seed, 26, batch_size)
    batch = whole[step]
    assert len(batch) == batch_size
    assert all(0 <= number < rows[task] for task, number in batch)
    assert TaskSampler(lengths, shares, seed, step + 1, batch_size)[step] == batch


# Tries

answers = st.lists(
    st.lists(st.integers(2, 6), max_size=5).map(lambda part: (*part, 1)), min_size=2, max_size=7, unique=True
)


@given(answers, st.sampled_from(["likelihood", "constrained"]))
def test_a_trie_says_of_each_answer_what_a_walk_over_its_tokens_says(given_answers, scoring):
    found = trie(given_answers, scoring)

    def prefix(node):
        return tuple(found.tokens[place] for place in reversed(found.seen(node)) if place)

    assert len(found.paths) == len(given_answers)
    for answer, path in zip(given_answers, found.paths, strict=True):
        steps = [(prefix(found.edges[edge][0]), found.edges[edge][1]) for edge in path]
        wanted = [(tuple(answer[:place]), token) for place, token in enumerate(answer)]
        if scoring == "constrained":
            after = {step[0]: {other[: len(step[0]) + 1][-1] for other in given_answers
                     if other[: len(step[0])] == step[0] and len(other) > len(step[0])} for step in wanted}  # fmt: skip
            wanted = [step for step in wanted if len(after[step[0]]) > 1]
        assert steps == wanted
    assert len(set(found.paths)) == len(given_answers)  # no two answers have one score
    assert [found.depths[node] - 1 for node in range(1, len(found.tokens))] == [
        found.depths[found.parents[node]] for node in range(1, len(found.tokens))
    ]


# Texts as tokens


@given(texts)
def test_no_text_is_a_special_token_nor_more_tokens_than_it_may_have(words):
    ids = TOKENIZER.encode(words).ids
    special = {TOKENIZER.token_to_id(token) for token in ("</s>", "<pad>")}
    assert ids[-1] == TOKENIZER.token_to_id("</s>")
    assert not special & set(ids[:-1])
    cut = Tokenizer.from_str(TOKENIZER.to_str())
    cut.encode_special_tokens = True
    cut.enable_truncation(8)
    assert cut.encode(words).ids == (ids if len(ids) <= 8 else [*ids[:7], ids[-1]])


@given(st.lists(st.sampled_from("the film is wonderful not although today book garden".split()), max_size=12))
def test_words_that_it_knows_come_back_as_they_were(words):
    assert TOKENIZER.decode(TOKENIZER.encode(" ".join(words)).ids) == " ".join(words)


# Manifests

manifests = st.builds(
    Manifest,
    format=st.just(FORMAT), task=texts, kind=texts, text=st.one_of(texts, st.tuples(texts, texts)),
    labels=st.lists(texts, max_size=3), numbers=st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
    max_source_tokens=st.integers(1, 999), opset=st.integers(18, 22), backbone=texts, method=texts,
    files=st.dictionaries(texts, texts, max_size=2),
    parity=st.dictionaries(texts, st.floats(allow_nan=False), max_size=2),
    int8=st.just({}), metrics=st.just({}), made_from=st.dictionaries(texts, texts, max_size=2),
)  # fmt: skip


@given(manifests)
def test_a_manifest_is_read_as_it_was_written(made):
    with tempfile.TemporaryDirectory() as place:
        made.write(Path(place))
        assert manifest.read(Path(place)) == made


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(manifests, st.data())
def test_an_altered_manifest_is_read_or_refused_in_one_sentence(made, data):
    tree = asdict(made)
    for key in data.draw(st.lists(st.sampled_from(sorted(tree)), min_size=1, max_size=3, unique=True)):
        tree[key] = data.draw(json_values)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / manifest.FILE).write_text(json.dumps(tree))
        found, said = told(described, Path(place))
    assert said or isinstance(found, Manifest)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_manifest_are_refused(content):
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / manifest.FILE).write_bytes(content)
        with pytest.raises(HyperFormerError):
            manifest.read(Path(place))
