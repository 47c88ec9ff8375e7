"""Property-based tests of templates, splits, batches, tries, tokenization and manifests."""

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

from hyperformer.backbones.trie import build_trie
from hyperformer.core import manifest, text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import FORMAT, Manifest
from hyperformer.core.values import to_text
from hyperformer.data.splits import prepare
from hyperformer.runtime.files import read_valid_manifest
from hyperformer.settings import DataSettings, Tasks
from hyperformer.tasks import make_tasks
from hyperformer.training.sampling import Permutations, TaskSampler, compute_task_shares

ROOT = Path(__file__).parents[2]
TOKENIZER = Tokenizer.from_file(str(ROOT / "data/06_models/backbone/tokenizer.json"))
TOKENIZER.encode_special_tokens = True

settings.register_profile("project", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("project")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text(st.characters(exclude_characters="{}:!", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    str.strip
)
literals = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=12)


def call(function, *arguments):
    """Return the result of a function and an empty string, or None and its error message."""
    try:
        return function(*arguments), ""
    except HyperFormerError as error:
        return None, str(error)


# Templates


@given(st.lists(st.tuples(literals, names), min_size=1, max_size=5), literals, st.data())
def test_a_template_is_rendered_with_the_values_of_the_row(fields, last, data):
    template = "".join(f"{literal}{{{name}}}" for literal, name in fields) + last
    row = {name: data.draw(texts) for _, name in fields}
    assert text.find_columns(template) == list(dict.fromkeys(name for _, name in fields))
    assert text.render(template, row) == "".join(f"{literal}{row[name]}" for literal, name in fields) + last


@given(texts)
def test_any_text_is_a_template_or_is_refused_in_one_sentence(template):
    columns, error = call(text.find_columns, template)
    if error:
        assert repr(template) in error
    else:
        assert isinstance(text.render(template, dict.fromkeys(columns, "x")), str)


values = st.one_of(texts, st.integers(), st.floats(), st.none(), st.booleans(), st.lists(texts))


@given(st.dictionaries(st.sampled_from("abc"), values))
def test_any_row_is_rendered_or_refused(row):
    source, error = call(text.render, "{a} and {b}", row)
    assert error or source == f"{to_text(row['a'], 'a')} and {to_text(row['b'], 'b')}"


@given(st.integers(-50, 50), st.integers(1, 40), st.sampled_from([0.1, 0.2, 0.25, 0.5, 1, 2]), st.floats(-100, 100))
def test_a_grid_has_its_numbers_as_texts_and_nearest_finds_the_nearest(low, count, step, number):
    pairs = text.number_grid(low, low + count * step, step)
    assert len(pairs) == count + 1
    assert all(float(answer) == pytest.approx(value) for answer, value in pairs)
    assert len({answer for answer, _ in pairs}) == len(pairs)
    numbers = [value for _, value in pairs]
    best = text.nearest_index(numbers, number)
    assert all(abs(numbers[best] - number) <= abs(other - number) for other in numbers)


@given(st.lists(st.floats(-1e6, 0), min_size=1, max_size=8))
def test_probabilities_are_shares_in_the_order_of_scores(scores):
    normalized = text.normalize_scores(scores)
    assert math.isclose(sum(normalized), 1.0, rel_tol=1e-9)
    assert normalized[scores.index(max(scores))] == max(normalized)


# Splits


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 9)), min_size=12, max_size=40),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_splits_share_no_text_lose_no_row_silently_and_depend_on_the_seed_alone(pairs, validation, test, seed):
    rows = [{"a": f"{letter}{number}", "label": number % 2} for letter, number in pairs]
    block = {
        "text": "{a}", "kind": "classification", "label_column": "label", "labels": {0: "no", 1: "yes"},
        "metrics": ["accuracy"], "splits": {"validation": f"hold_out_{validation}", "test": f"hold_out_{test}"},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks, source = make_tasks(Tasks.model_validate({"t": block})), DataSettings(source=folder)
        result, error = call(prepare, tasks, source, Path("unused"), seed)
        if error:
            assert "is also in a later split" in error
            return
        prepared, counts = result
        split = {name: [row["a"] for row in table] for name, table in prepared["t"].items()}
        again, _ = prepare(tasks, source, Path("unused"), seed)
        assert {name: [row["a"] for row in table] for name, table in again["t"].items()} == split
    assert not set(split["train"]) & (set(split["validation"]) | set(split["test"]))
    assert not set(split["validation"]) & set(split["test"])
    assert len(split["test"]) == test
    assert set().union(*split.values()) == {row["a"] for row in rows}
    removed = sum(value for count in counts["t"].values() for key, value in count.items() if key != "rows")
    assert sum(map(len, split.values())) + removed == len(rows)


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
    shares = compute_task_shares(rows, dict.fromkeys(rows, weight), temperature)
    assert math.isclose(sum(shares.values()), 1.0, rel_tol=1e-9)
    ordered = sorted(rows, key=rows.__getitem__)
    assert all(shares[a] <= shares[b] * (1 + 1e-9) for a, b in pairwise(ordered))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 99), st.integers(1, 25))
def test_a_step_has_the_same_rows_whenever_it_is_requested(rows, batch_size, seed, step):
    shares = list(compute_task_shares(dict(enumerate(rows)), dict.fromkeys(range(len(rows)), 1.0), 10.0).values())
    lengths = [np.full(count, 5) for count in rows]
    sampler = TaskSampler(lengths, shares, seed, 26, batch_size)
    batch = sampler[step]
    assert len(batch) == batch_size
    assert all(0 <= number < rows[task] for task, number in batch)
    assert TaskSampler(lengths, shares, seed, step + 1, batch_size)[step] == batch


# Tries

answers = st.lists(
    st.lists(st.integers(2, 6), max_size=5).map(lambda tokens: (*tokens, 1)), min_size=2, max_size=7, unique=True
)


@given(answers, st.sampled_from(["likelihood", "constrained"]))
def test_the_path_of_each_answer_in_a_trie_is_its_tokens(all_answers, scoring):
    tree = build_trie(all_answers, scoring)

    def prefix(node):
        return tuple(tree.tokens[ancestor] for ancestor in reversed(tree.ancestors(node)) if ancestor)

    assert len(tree.paths) == len(all_answers)
    for answer, path in zip(all_answers, tree.paths, strict=True):
        steps = [(prefix(tree.edges[edge][0]), tree.edges[edge][1]) for edge in path]
        expected = [(tuple(answer[:position]), token) for position, token in enumerate(answer)]
        if scoring == "constrained":
            after = {start: {other[: len(start) + 1][-1] for other in all_answers
                     if other[: len(start)] == start and len(other) > len(start)} for start, _ in expected}  # fmt: skip
            expected = [(start, token) for start, token in expected if len(after[start]) > 1]
        assert steps == expected
    assert len(set(tree.paths)) == len(all_answers)  # different answers have different scores
    assert [tree.depths[node] - 1 for node in range(1, len(tree.tokens))] == [
        tree.depths[tree.parents[node]] for node in range(1, len(tree.tokens))
    ]


# Tokenization


@given(texts)
def test_no_text_becomes_a_special_token_or_exceeds_the_truncation_length(content):
    ids = TOKENIZER.encode(content).ids
    special = {TOKENIZER.token_to_id(token) for token in ("</s>", "<pad>")}
    assert ids[-1] == TOKENIZER.token_to_id("</s>")
    assert not special & set(ids[:-1])
    truncating = Tokenizer.from_str(TOKENIZER.to_str())
    truncating.encode_special_tokens = True
    truncating.enable_truncation(8)
    assert truncating.encode(content).ids == (ids if len(ids) <= 8 else [*ids[:7], ids[-1]])


@given(st.lists(st.sampled_from("the film is wonderful not although today book garden".split()), max_size=12))
def test_known_words_survive_encoding_and_decoding(known):
    assert TOKENIZER.decode(TOKENIZER.encode(" ".join(known)).ids) == " ".join(known)


# Manifests

manifests = st.builds(
    Manifest,
    format=st.just(FORMAT), task=texts, kind=texts, text=st.one_of(texts, st.tuples(texts, texts)),
    missing=st.sampled_from([None, "empty"]),
    labels=st.lists(texts, max_size=3), numbers=st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
    max_source_tokens=st.integers(1, 999), opset=st.integers(18, 22), backbone=texts, method=texts,
    files=st.dictionaries(texts, texts, max_size=2),
    parity=st.dictionaries(texts, st.floats(allow_nan=False), max_size=2),
    int8=st.just({}), openvino=st.just({}), metrics=st.just({}),
    baselines=st.dictionaries(texts, st.floats(allow_nan=False), max_size=2), published=st.booleans(),
    made_from=st.dictionaries(texts, texts, max_size=2),
)  # fmt: skip


@given(manifests)
def test_a_manifest_is_read_as_it_was_written(written):
    with tempfile.TemporaryDirectory() as folder:
        written.write(Path(folder))
        assert manifest.read(Path(folder)) == written


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(manifests, st.data())
def test_an_altered_manifest_is_read_or_refused_in_one_sentence(written, data):
    tree = asdict(written)
    for key in data.draw(st.lists(st.sampled_from(sorted(tree)), min_size=1, max_size=3, unique=True)):
        tree[key] = data.draw(json_values)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / manifest.MANIFEST).write_text(json.dumps(tree))
        loaded, error = call(read_valid_manifest, Path(folder))
    assert error or isinstance(loaded, Manifest)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_manifest_are_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / manifest.MANIFEST).write_bytes(content)
        with pytest.raises(HyperFormerError):
            manifest.read(Path(folder))
