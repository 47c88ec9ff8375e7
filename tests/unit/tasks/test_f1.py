"""F1 of a classification task is that of scikit-learn's `f1_score`, called plainly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from hyperformer.core.types import Answer
from hyperformer.settings import Tasks
from hyperformer.tasks import make_tasks
from hyperformer.tasks.classification import OUTSIDE

LABELS = 5


def compute_f1(truths: Sequence[int], predictions: Sequence[int], labels: int = LABELS) -> float:
    """Return F1 of a task with `labels` labels, in percent; the predictions are its answers."""
    block = {
        "text": "{a}",
        "kind": "classification",
        "label_column": "l",
        "labels": {n: f"label {n}" for n in range(labels)},
        "metrics": ["f1"],
    }
    task = make_tasks(Tasks.model_validate({"t": block}))["t"]
    answers = [Answer(f"label {n}", {}) for n in predictions]
    return task.compute_metrics(truths, [task.to_prediction(answer) for answer in answers])["f1"]


def rows(smallest: int, labels: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Draw pairs of a true label and a prediction, which is at least `smallest`."""
    return st.lists(st.tuples(st.integers(0, labels - 1), st.integers(smallest, labels - 1)), min_size=1, max_size=12)


@settings(deadline=None, derandomize=True)
@given(rows(0, LABELS))
def test_f1_of_several_labels_is_sklearns_macro_f1(pairs: list[tuple[int, int]]) -> None:
    truths, predictions = zip(*pairs, strict=True)
    assert compute_f1(truths, predictions) == pytest.approx(100 * f1_score(truths, predictions, average="macro"))


@settings(deadline=None, derandomize=True)
@given(rows(0, 2))
def test_f1_of_two_labels_is_sklearns_f1_of_the_second(pairs: list[tuple[int, int]]) -> None:
    truths, predictions = zip(*pairs, strict=True)
    expected = f1_score(truths, predictions, zero_division=0.0)
    assert compute_f1(truths, predictions, labels=2) == pytest.approx(100 * expected)


@pytest.mark.parametrize(
    ("truths", "predictions", "expected"),
    [
        ([0, 1, 2, 2], [0, 1, 1, 1], (1 + 1 / 2 + 0) / 3),  # label 2 is only in truths; 3 and 4 are in neither
        ([0, 1, 1, 1], [0, 1, 2, 2], (1 + 1 / 2 + 0) / 3),  # label 2 is only in predictions
        ([0, 1, 1], [0, 1, 1], 1.0),
    ],
)
def test_f1_leaves_out_labels_that_occur_nowhere(truths: list[int], predictions: list[int], expected: float) -> None:
    assert compute_f1(truths, predictions) == pytest.approx(100 * expected)


@settings(deadline=None, derandomize=True)
@given(rows(OUTSIDE, LABELS))
def test_a_right_answer_in_place_of_one_outside_the_labels_raises_f1(pairs: list[tuple[int, int]]) -> None:
    truths, predictions = zip(*pairs, strict=True)
    right = [truth if answer == OUTSIDE else answer for truth, answer in pairs]
    if OUTSIDE in predictions:
        assert compute_f1(truths, predictions) < compute_f1(truths, right)


def test_an_answer_outside_the_labels_is_no_label_itself() -> None:
    assert compute_f1([0, 1, 2], [0, 1, OUTSIDE]) == pytest.approx(100 * (1 + 1 + 0) / 3)
    assert compute_f1([0, 1, 2], [OUTSIDE] * 3) == 0.0
