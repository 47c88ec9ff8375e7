"""The rows of examples/starter: their numbers, and that no two rows are nearly the same."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "examples" / "starter"
TASKS = {
    "tickets": (("subject", "body"), "queue", 8, 300),
    "reviews": (("review",), "sentiment", 3, 300),
    "intents": (("request",), "intent", 12, 300),
    "same_question": (("question1", "question2"), "same", 2, 60),
}
"""Text columns, label column, number of labels and number of training rows of each task."""
NEAR = 0.6
"""Jaccard index of the sets of three consecutive words above which two rows are nearly the same."""
RUN = 8
"""Number of consecutive words that no two rows of a label share."""


def read(task: str) -> list[tuple[str, dict[str, str]]]:
    rows = []
    for split in ("train", "test"):
        with (FOLDER / task / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows += [(split, row) for row in csv.DictReader(file)]
    return rows


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_rows_and_every_label_in_both_splits(task):
    texts, label, labels, train = TASKS[task]
    rows = read(task)
    assert Counter(split for split, _ in rows) == {"train": train, "test": 150}
    assert all(list(row) == [*texts, label] for _, row in rows)
    assert all(value and value == value.strip() for _, row in rows for value in row.values())
    counts = Counter((split, row[label]) for split, row in rows)
    assert len(counts) == 2 * labels
    assert min(counts.values()) >= 10


@pytest.mark.parametrize("task", TASKS)
def test_no_two_rows_are_nearly_the_same(task):
    texts, label, *_ = TASKS[task]
    rows = [row for _, row in read(task)]
    tokens = [re.findall(r"[\w']+", " ".join(row[column] for column in texts).lower()) for row in rows]
    triples = [set(itertools.pairwise(itertools.pairwise(row))) for row in tokens]
    runs = [{tuple(row[start : start + RUN]) for start in range(len(row) - RUN + 1)} for row in tokens]
    for a, b in itertools.combinations(range(len(rows)), 2):
        assert len(triples[a] & triples[b]) <= NEAR * len(triples[a] | triples[b]), (rows[a], rows[b])
        assert rows[a][label] != rows[b][label] or runs[a].isdisjoint(runs[b]), (rows[a], rows[b])
