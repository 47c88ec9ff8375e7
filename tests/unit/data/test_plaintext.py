"""Pretraining rows from plain text: their objectives and order."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from hyperformer.core.errors import HyperFormerError
from hyperformer.data.plaintext import COMMON, generate_rows

LINE = "one two three four five six seven eight nine ten eleven twelve thirteen"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    greek = ["alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi omicron pi rho sigma tau upsilon"]
    frequent = " ".join(f"of{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(COMMON))
    path.write_text("\n".join([*greek, *[frequent] * 3, LINE]) + "\n", encoding="utf-8")
    return str(path)


def by_objective(pretraining_rows: list[dict[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Return the texts and targets of rows by their prompt, which is empty for span corruption."""
    pairs = defaultdict(list)
    for row in pretraining_rows:
        prompt, _, text = row["source"].partition(": ") if row["target"] else ("", "", row["source"])
        pairs[prompt].append((text, row["target"]))
    return pairs


def test_text_is_split_into_chunks_of_at_most_max_words_and_short_ends_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(f"{LINE}\n\ntoo short a line\n", encoding="utf-8")
    pretraining_rows = list(generate_rows(str(tmp_path / "text.txt"), ["a b c d e"], count=60, max_words=5, seed=0))
    texts = {row["source"] for row in pretraining_rows if not row["target"]}
    assert texts == {"one two three four five", "six seven eight nine ten", "a b c d e"}


def test_words_are_repeated_first_then_copied_then_pairs_judged(file: str) -> None:
    pretraining_rows = list(generate_rows(file, [], count=2000, max_words=20, seed=0))
    assert set(by_objective(pretraining_rows[:200])) == {"repeat"}
    assert set(by_objective(pretraining_rows[200:1100])) == {"", "repeat", "keywords", "shared"}
    assert set(by_objective(pretraining_rows[1100:])) == {"", "repeat", "keywords", "shared", "follows"}


def test_every_target_follows_from_its_source(file: str) -> None:
    pairs = by_objective(list(generate_rows(file, [], count=2000, max_words=20, seed=0)))
    for text, target in pairs["repeat"]:
        assert text == target
        assert len(target.split()) <= 12
    for text, target in pairs["keywords"]:
        assert target == "none" or set(target.split()) <= set(text.split())
        assert len(target.split()) <= 4
    for text, target in pairs["shared"]:
        first, second = (side.split() for side in text.split(" / "))
        assert target == "none" or target.split() == [w for w in first if w in target.split() and w in second]
    assert {target for _, target in pairs["follows"]} == {"indeed", "elsewhere"}


def test_the_most_frequent_words_are_no_keywords(file: str) -> None:
    pairs = by_objective(list(generate_rows(file, [], count=2000, max_words=20, seed=0)))
    keywords = {word for _, target in pairs["keywords"] + pairs["shared"] for word in target.split()}
    assert {"alpha", "lamda"} <= keywords
    assert not any(word.startswith("of") for word in keywords)


def test_short_text_is_repeated_and_shuffled_by_the_seed(tmp_path: Path) -> None:
    lines = [f"w{i} b c d e" for i in range(20)]
    (tmp_path / "text.txt").write_text("", encoding="utf-8")
    first, second, other = (list(generate_rows(str(tmp_path / "text.txt"), lines, 400, 9, seed)) for seed in (0, 0, 1))
    assert first == second != other
    assert len(first) == 400
    assert {row["source"] for row in first if not row["target"]} == {*lines}


def test_text_without_a_line_of_five_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three four\n", encoding="utf-8")
    with pytest.raises(HyperFormerError, match="no line of at least 5 words"):
        list(generate_rows(str(tmp_path / "text.txt"), [], 1, 9, 0))


@pytest.mark.parametrize("content", [None, b"\xff\xfe latin"])
def test_a_text_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(HyperFormerError, match=r"pretraining\.text_file: .*text\.txt cannot be read"):
        list(generate_rows(str(file), [], 1, 9, 0))
