from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset
from toys import make_pair_task

from hyperformer import evaluation
from hyperformer.core.types import Answer
from hyperformer.data.storage import write_rows
from hyperformer.tasks import Task


def make_regression_task() -> Task:
    return make_pair_task(kind="regression", minimum=0, maximum=5, step=1, metrics=["pearson", "spearman"])


def test_the_standard_error_of_half_right_in_400_rows_is_two_and_a_half_points() -> None:
    assert evaluation.standard_error(make_pair_task(), {"accuracy": 50.0, "mean": 50.0}, 400) == pytest.approx(2.5)


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_the_standard_error_of_all_or_nothing_is_zero(mean: float) -> None:
    assert evaluation.standard_error(make_pair_task(), {"accuracy": mean, "mean": mean}, 400) == 0.0


def test_the_standard_error_of_a_correlation_is_that_of_pearson() -> None:
    error = evaluation.standard_error(make_regression_task(), {"pearson": 60.0, "spearman": 60.0, "mean": 60.0}, 400)
    assert error == pytest.approx(100 * (1 - 0.6**2) / 20)


def test_the_standard_error_of_matthews_at_zero_is_that_of_a_balanced_guess() -> None:
    task = make_pair_task(metrics=["matthews"])
    guessed = [score_guesses(task, seed) for seed in range(200)]
    mean = sum(guessed) / len(guessed)
    spread = (sum((score - mean) ** 2 for score in guessed) / (len(guessed) - 1)) ** 0.5
    assert evaluation.standard_error(task, {"matthews": 0.0, "mean": 0.0}, 100) == pytest.approx(spread, rel=0.2)


def score_guesses(task: Task, seed: int, rows: int = 100) -> float:
    rng = Random(seed)
    truths = [i % 2 for i in range(rows)]
    return task.compute_metrics(truths, [rng.randrange(2) for _ in truths])["matthews"]


ROWS = Dataset.from_dict({"first": ["a", "c", "e"], "second": ["b", "d", "f"], "label": [1, 0, 0]})


def always_yes(task: str, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    return [Answer("yes", {"no": 0.25, "yes": 0.75}) for _ in rows]


def test_metrics_are_in_percent_with_their_mean() -> None:
    task = make_pair_task(metrics=["accuracy", "f1"])
    results = evaluation.compute_metrics(task, ROWS, always_yes("t", ROWS))
    expected = {"accuracy": 100 / 3, "f1": 50.0, "mean": (100 / 3 + 50) / 2, "auc": 50.0, "collapsed": 1.0}
    assert results == pytest.approx(expected)


def answer_with(*probabilities: float) -> list[Answer]:
    """Answer with these probabilities of yes, the second label."""
    return [Answer("yes" if p >= 0.5 else "no", {"no": 1 - p, "yes": p}) for p in probabilities]


def test_the_area_under_the_curve_is_the_share_of_pairs_in_the_right_order() -> None:
    task = make_pair_task(metrics=["matthews"])
    rows = Dataset.from_dict({"first": list("abcde"), "second": list("abcde"), "label": [1, 1, 0, 0, 0]})
    results = evaluation.compute_metrics(task, rows, answer_with(0.4, 0.2, 0.3, 0.1, 0.1))
    assert results["matthews"] == results["mean"] == 0.0  # no row has a probability of 0.5
    assert results["auc"] == pytest.approx(100 * 5 / 6)


def test_only_two_labels_with_probabilities_and_a_metric_with_a_threshold_have_an_area_under_the_curve() -> None:
    answers = answer_with(0.4, 0.2, 0.3)
    three = {"labels": {0: "no", 1: "yes", 2: "maybe"}}
    assert "auc" in evaluation.compute_metrics(make_pair_task(metrics=["f1"]), ROWS, answers)
    for task in (make_pair_task(metrics=["accuracy"]), make_pair_task(metrics=["f1"], **three)):
        assert "auc" not in evaluation.compute_metrics(task, ROWS, answers)
    generated = [Answer(answer.label, {}) for answer in answers]
    assert "auc" not in evaluation.compute_metrics(make_pair_task(metrics=["f1"]), ROWS, generated)
    assert "auc" not in evaluation.compute_metrics(make_pair_task(metrics=["f1"]), ROWS.select([0, 0]), answers[:2])


def test_equal_answers_to_rows_of_equal_labels_are_no_collapse() -> None:
    rows = ROWS.select([0, 0])
    assert evaluation.compute_metrics(make_pair_task(), rows, always_yes("t", rows))["collapsed"] == 0.0


def test_a_regression_task_has_collapsed_if_all_its_numbers_are_nearest_to_the_same() -> None:
    rows = Dataset.from_list([{"first": "a", "second": "b", "label": score} for score in (0.0, 2.6, 5.0)])

    def collapsed(*numbers: float) -> float:
        return evaluation.compute_metrics(make_regression_task(), rows, [Answer("3", {"3": 1.0}, n) for n in numbers])[
            "collapsed"
        ]

    assert collapsed(2.6, 3.0, 3.4) == 1.0
    assert collapsed(2.4, 3.0, 3.4) == 0.0


def test_a_generated_answer_that_the_task_does_not_have_is_wrong_and_counted() -> None:
    answers = [Answer("yes", {}), Answer("maybe", {}), Answer("no", {})]
    results = evaluation.compute_metrics(make_pair_task(metrics=["accuracy", "f1", "matthews"]), ROWS, answers)
    assert results["accuracy"] == pytest.approx(200 / 3)
    assert results["f1"] == pytest.approx(100.0)
    assert 0 < results["matthews"] < 100
    assert results["outside"] == 1.0
    assert evaluation.format_metrics(results).endswith("1 generated answers that the task does not have")
    assert "outside" not in evaluation.compute_metrics(make_pair_task(), ROWS, always_yes("t", ROWS))


def test_a_generated_number_outside_the_grid_counts_as_the_farthest() -> None:
    rows = Dataset.from_list([{"first": "a", "second": "b", "label": score} for score in (0.0, 2.6, 5.0)])
    right = [Answer("0", {}, 0.0), Answer("3", {}, 3.0), Answer("5", {}, 5.0)]
    assert evaluation.compute_metrics(make_regression_task(), rows, right)["spearman"] == pytest.approx(100.0)
    wrong = [*right[:2], Answer("5.5", {})]
    assert evaluation.compute_metrics(make_regression_task(), rows, wrong) == evaluation.compute_metrics(
        make_regression_task(), rows, [*right[:2], Answer("0", {}, 0.0)]
    ) | {"outside": 1.0}


def test_a_generated_answer_has_no_probability(tmp_path: Path) -> None:
    _, table = evaluation.evaluate(lambda task, rows: [Answer("yes", {}) for _ in rows], make_pair_task(), ROWS)
    assert list(table) == ["source", "truth", "answer"]


def test_evaluate_returns_source_truth_and_answer_of_every_row() -> None:
    results, table = evaluation.evaluate(always_yes, make_pair_task(), ROWS)
    assert results["accuracy"] == pytest.approx(100 / 3)
    assert table.to_dict("list") == {
        "source": ["first: a second: b", "first: c second: d", "first: e second: f"],
        "truth": ["yes", "no", "no"],
        "answer": ["yes"] * 3,
        "probability": [0.75] * 3,
    }


def test_evaluate_returns_the_number_of_a_regression_task() -> None:
    rows = Dataset.from_list([{"first": "a", "second": "b", "label": score} for score in (0.0, 2.6, 5.0)])
    answers = [Answer(str(i), {str(i): 1.0}, value) for i, value in ((0, 0.5), (3, 2.5), (5, 4.5))]
    results, table = evaluation.evaluate(lambda task, rows: answers, make_regression_task(), rows)
    assert list(table["truth"]) == ["0", "3", "5"]
    assert list(table["value"]) == [0.5, 2.5, 4.5]
    assert results["spearman"] == pytest.approx(100.0)


def test_evaluate_all_scores_validation_and_test_and_writes_every_prediction(tmp_path: Path) -> None:
    tasks = {"one": make_pair_task(), "two": make_pair_task(labels={1: "yes", 0: "no"})}
    test = ROWS.select([0, 0])  # both right
    splits = {"train": ROWS, "validation": ROWS, "test": test}
    write_rows({"one": splits, "two": splits})(tmp_path / "rows")
    expected = {split: ["one", "two", "mean"] for split in ("validation", "test")}
    results, write = evaluation.evaluate_all(always_yes, tasks, tmp_path / "rows")
    assert {split: list(tasks) for split, tasks in results.items()} == expected
    assert results["validation"]["mean"]["mean"] == pytest.approx(100 / 3)
    assert results["test"]["one"] == {"accuracy": 100.0, "mean": 100.0, "collapsed": 0.0}
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert {str(file.relative_to(tmp_path / "out")) for file in tmp_path.glob("out/*/*")} == {
        f"{task}/{split}.csv" for task in tasks for split in ("validation", "test")
    }
    assert list(pd.read_csv(tmp_path / "out/one/validation.csv")["truth"]) == ["yes", "no", "no"]


def test_the_mean_of_results_is_over_tasks_and_not_over_metrics() -> None:
    results = {"a": {"accuracy": 80.0, "f1": 90.0, "mean": 85.0}, "b": {"matthews": 15.0, "mean": 15.0}}
    assert evaluation.average_tasks(results) == 50.0
