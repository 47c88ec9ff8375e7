from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer, Example
from hyperformer.settings import Tasks
from hyperformer.tasks import (
    TASK_TYPES,
    Classification,
    LabelError,
    RegressionSettings,
    Task,
    make_tasks,
    register_task,
)


def make_classification(*metrics: str, **settings: Any) -> Task:
    block = {
        "text": "{a}",
        "kind": "classification",
        "label_column": "label",
        "labels": {0: "no", 1: "yes"},
        "metrics": metrics or ("accuracy",),
        **settings,
    }
    return make_tasks(Tasks.model_validate({"t": block}))["t"]


def make_regression(*metrics: str) -> Task:
    block = {
        "text": "{a}",
        "kind": "regression",
        "label_column": "score",
        "minimum": 0,
        "maximum": 5,
        "step": 0.2,
        "metrics": metrics or ("pearson",),
    }
    return make_tasks(Tasks.model_validate({"t": block}))["t"]


def make_generation(*metrics: str) -> Task:
    block = {"text": "{a}", "kind": "generation", "label_column": "b", "metrics": metrics or ("exact_match",)}
    return make_tasks(Tasks.model_validate({"t": block}))["t"]


def test_tasks_come_in_the_order_of_the_configuration() -> None:
    block = {
        "text": "{a}",
        "kind": "classification",
        "label_column": "l",
        "labels": {0: "x", 1: "y"},
        "metrics": ["f1"],
    }
    tasks = make_tasks(Tasks.model_validate({"second": block, "first": block}))
    assert list(tasks) == ["second", "first"]
    assert [task.name for task in tasks.values()] == ["second", "first"]


def test_every_kind_has_a_separate_class() -> None:
    assert set(TASK_TYPES) == {"classification", "regression", "generation"}
    assert type(make_classification()) is TASK_TYPES["classification"]
    assert type(make_regression()) is TASK_TYPES["regression"]


TRUTHS, PREDICTIONS = (
    [1, 1, 1, 0, 0, 0, 0, 1],
    [1, 1, 0, 0, 0, 1, 1, 1],
)  # 3 true positives, 2 false, 2 true negatives, 1 false


def test_accuracy_is_the_share_of_right_answers_in_percent() -> None:
    assert make_classification("accuracy").compute_metrics(TRUTHS, PREDICTIONS) == {
        "accuracy": pytest.approx(100 * 5 / 8)
    }


def test_f1_of_two_labels_is_that_of_label_one_in_percent() -> None:
    assert make_classification("f1").compute_metrics(TRUTHS, PREDICTIONS) == {
        "f1": pytest.approx(100 * 2 * 3 / (2 * 3 + 2 + 1))
    }


def test_f1_of_three_labels_is_the_mean_over_labels() -> None:
    task = make_classification("f1", labels={0: "a", 1: "b", 2: "c"})
    metrics = task.compute_metrics([0, 0, 1, 2], [0, 1, 1, 2])
    assert metrics == {"f1": pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)}


def test_f1_without_any_positive_is_zero() -> None:
    assert make_classification("f1").compute_metrics([0, 0], [0, 0]) == {"f1": 0.0}


def test_matthews_is_the_correlation_of_two_labels_in_percent() -> None:
    expected = (3 * 2 - 2 * 1) / math.sqrt((3 + 2) * (3 + 1) * (2 + 2) * (2 + 1))
    assert make_classification("matthews").compute_metrics(TRUTHS, PREDICTIONS) == {
        "matthews": pytest.approx(100 * expected)
    }


def test_matthews_of_constant_predictions_is_zero() -> None:
    assert make_classification("matthews").compute_metrics([0, 1, 1], [1, 1, 1]) == {"matthews": 0.0}


NUMBERS, GUESSES = [0.0, 1.0, 2.0, 5.0], [1.0, 0.0, 4.0, 4.5]


def test_pearson_is_the_linear_correlation_in_percent() -> None:
    x, y = np.array(NUMBERS) - np.mean(NUMBERS), np.array(GUESSES) - np.mean(GUESSES)
    expected = 100 * (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())
    assert make_regression("pearson").compute_metrics(NUMBERS, GUESSES) == {"pearson": pytest.approx(expected)}


def test_spearman_is_the_correlation_of_ranks_in_percent() -> None:
    squares = 1 + 1 + 0 + 0  # ranks 1 2 3 4 against 2 1 3 4
    expected = 100 * (1 - 6 * squares / (4 * (4**2 - 1)))
    assert make_regression("spearman").compute_metrics(NUMBERS, GUESSES) == {"spearman": pytest.approx(expected)}


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
@pytest.mark.parametrize(("truths", "guesses"), [(NUMBERS, [2.5] * 4), ([2.5] * 4, GUESSES), ([1.0], [2.0])])
def test_a_constant_side_correlates_with_nothing_and_warns_of_nothing(
    metric: str, truths: list[float], guesses: list[float]
) -> None:
    assert make_regression(metric).compute_metrics(truths, guesses) == {metric: 0.0}  # a warning is an error here


def test_metrics_come_in_the_order_of_the_configuration() -> None:
    assert list(make_classification("f1", "accuracy").compute_metrics(TRUTHS, PREDICTIONS)) == ["f1", "accuracy"]


@pytest.mark.parametrize("metric", ["pearson", "bleu"])
def test_an_unknown_metric_of_classification_names_the_known(metric: str) -> None:
    with pytest.raises(HyperFormerError, match=f"'t': unknown metric '{metric}'.*supports accuracy, f1, matthews"):
        make_classification("accuracy", metric)


def test_an_unknown_metric_of_regression_names_the_known() -> None:
    with pytest.raises(HyperFormerError, match=r"'t': unknown metric 'accuracy'.*supports pearson, spearman"):
        make_regression("accuracy")


def test_a_text_without_columns_is_refused() -> None:
    with pytest.raises(HyperFormerError, match="names no column"):
        make_classification(text="sentence")


def test_an_example_is_the_text_and_the_answer_of_a_row() -> None:
    task = make_classification(text="question: {q} sentence: {s}", labels={0: "no", 1: "yes"})
    row = {"q": "Who?", "s": "Mia.", "label": 1, "idx": 7}
    assert task.text_columns == ["q", "s"]
    assert task.make_example(row) == Example("t", "question: Who? sentence: Mia.", "yes", 1)


def test_labels_can_be_strings() -> None:
    task = make_classification(labels={"entails": "entailment", "neutral": "neutral"})
    assert task.answers == ["entailment", "neutral"]
    assert task.make_example({"a": "x", "label": "neutral"}).answer == "neutral"


def test_the_order_of_the_labels_and_not_their_values_is_the_order_of_the_answers() -> None:
    task = make_classification(labels={1: "yes", 0: "no"})
    assert task.answers == ["yes", "no"]
    assert task.read_label({"label": 0}) == 1


@pytest.mark.parametrize("label", [2, -1, 0.5, "yes", "", " 1", "01", True])
def test_a_label_outside_the_list_is_refused(label: object) -> None:
    with pytest.raises(LabelError, match=r"column 'label' is '.*', expected one of 0, 1\. "):
        make_classification().read_label({"label": label})


@pytest.mark.parametrize("row", [{"label": None}, {}])
def test_a_row_without_a_label_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(HyperFormerError, match="'label' is null"):
        make_classification().read_label(row)


@pytest.mark.parametrize(
    ("labels", "index_of"),
    [
        (["pos", "neg"], {"pos": 0, "neg": 1}),
        ([0, 1], {"0": 0, "1": 1, 0: 0, 1: 1, "1.0": 1, "0e0": 0}),
        ([1.5, 2.0], {"1.5": 0, "1.50": 0, "2": 1, 2: 1}),
        ({1.0: "positive", 0.0: "negative"}, {"1.0": 0, "0.0": 1, "1": 0, 0: 1}),
        ({"true": "y", "false": "n"}, {"true": 0, "True": 0, True: 0, "FALSE": 1}),
        ({"true": "y", "True": "Y"}, {"true": 0, "True": 1, "TRUE": 0}),
        (["12345678901234567890", "5"], {"12345678901234567890": 0, "5.0": 1}),
        ({"0": "n", "1": "y"}, {"1.0": 1, "0": 0, 0.0: 0}),
        ({True: "y", False: "n"}, {"true": 0, "True": 0, "TRUE": 0, True: 0, False: 1, "FALSE": 1}),
        ({"1": "a", 2: "b"}, {"1": 0, 1: 0, "2.00": 1}),
        ({"007": "a", "other": "b"}, {"007": 0, "other": 1}),
        (["", "label"], {"": 0, "label": 1}),
    ],
)
def test_labels_match_what_files_write(labels: Any, index_of: dict[Any, int]) -> None:
    if labels == ["", "label"]:
        labels = {"": "none", "label": "label"}
    task = make_classification(labels=labels)
    for label, index in index_of.items():
        assert task.read_label({"label": label}) == index


@pytest.mark.parametrize("labels", [[0, 1], {1.0: "y", 0.0: "n"}, {True: "y", False: "n"}, ["007", "x"]])
def test_labels_match_the_same_after_the_settings_were_written_as_json(labels: Any) -> None:
    task = make_classification(labels=labels)
    written = json.loads(json.dumps({"t": task.settings.model_dump(mode="json")}))
    [read] = make_tasks(Tasks.model_validate(written)).values()
    for label in ("0", "1", "1.0", "0.0", "True", "TRUE", "false", "007", "7"):
        row = {"label": label}
        assert [find_label(task, row), find_label(read, row)] in ([None, None], [0, 0], [1, 1])


def find_label(task: Task, row: dict[str, Any]) -> Any:
    try:
        return task.read_label(row)
    except LabelError:
        return None


def test_a_list_of_labels_has_them_as_answers() -> None:
    assert make_classification(labels=["b", 2.0, True]).answers == ["b", "2", "true"]


@pytest.mark.parametrize(
    ("labels", "label", "message"),
    [
        (
            {False: "Norwegian", "se": "Swedish"},
            "no",
            'YAML reads the label no as False if it is not quoted; write "no"',
        ),
        ([True, False], "Yes", 'YAML reads the label Yes as True if it is not quoted; write "Yes" in `labels`'),
        ([7, 8], "007", 'YAML reads the label 007 as a number if it is not quoted; write "007" in `labels`'),
        ([True, False], "tRUE", "'tRUE' differs from 'true' only in case"),
        (["+1", 1], "+2", "+2"),
        ([1, -1], "+1", 'YAML reads the label +1 as a number if it is not quoted; write "+1" in `labels`'),
        (["12345678901234567890", "5"], "12345678901234567891", "Add each label to `labels`, in quotes"),
        ([1, 0], "yes", "Add each label to `labels`, in quotes, or fix the rows"),
        (["pos", "b"], "Pos ", "'Pos ' differs from 'pos' only in case, spaces or the encoding of characters"),
        (["é", "b"], "e\u0301\u200b", "differs from 'é' only in case, spaces or the encoding"),
        ([121, 60], "2:1", 'YAML reads the label 2:1 as a number if it is not quoted; write "2:1" in `labels`'),
        (["a", "b"], "", "Fill the empty labels, or remove the rows; for null"),
    ],
)
def test_an_unknown_label_is_explained(labels: Any, label: str, message: str) -> None:
    with pytest.raises(LabelError, match=re.escape(message)):
        make_classification(labels=labels).read_label({"label": label})


def test_merged_labels_have_one_answer() -> None:
    labels = ["bug", "question", "rare", "rarer", "other"]
    task = make_classification(labels=labels, merge_labels={"other": ["rare", "rarer"]})
    assert task.answers == ["bug", "question", "other"]
    assert [task.read_label({"label": label}) for label in labels] == [0, 1, 2, 2, 2]
    task = make_classification(labels={0: "a", 1.0: "b", 2: "c"}, merge_labels={"few": [1, "2"]})
    assert task.answers == ["a", "few"]
    assert task.make_example({"a": "x", "label": "2.0"}).answer == "few"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"merge_labels": {"other": ["rar"]}},
            "`merge_labels` has 'rar', which `labels` has not; did you mean",
        ),
        ({"merge_labels": {"x": ["rare"], "y": ["rare"]}}, "`merge_labels` has 'rare' twice; merge each label once"),
        ({"merge_labels": {"x": ["rare", "bug"]}}, "`merge_labels` leaves a single answer; expected at least two"),
        ({"merge_labels": {"x": []}}, "at least 1 item"),
        ({"labels": ["a", "a"]}, "two labels are equal; list each label once, and quote"),
        ({"labels": [1, "1"]}, "two labels are equal"),
        ({"labels": ["1", "1.0"]}, "two labels are the same number; keep one of them"),
        ({"labels": ["a", 2**60]}, "the label 1152921504606846976 has no exact text; quote it"),
        ({"labels": ["a", None]}, "the label None has no exact text; quote it"),
        ({"labels": [["a"], "b"]}, "the label ['a'] has no exact text; quote it"),
        ({"labels": {"a": "x", "b": "x"}}, "give them different texts, or use `merge_labels`"),
    ],
)
def test_contradictory_labels_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        make_classification(**{"labels": ["rare", "bug"], **changes})


def test_the_prediction_of_a_classification_answer_is_its_index() -> None:
    assert make_classification().to_prediction(Answer("yes", {"no": 0.1, "yes": 0.9})) == 1


@pytest.mark.parametrize(("score", "answer"), [(0, "0.0"), (2.333, "2.4"), (4.75, "4.8"), ("3.2", "3.2"), (5, "5.0")])
def test_a_regression_row_has_the_nearest_answer_of_the_grid(score: Any, answer: str) -> None:
    assert make_regression().make_example({"a": "x", "score": score}).answer == answer


def test_a_regression_truth_is_the_number_itself() -> None:
    assert make_regression().read_label({"score": 2.333}) == 2.333


def test_the_prediction_of_a_regression_answer_is_its_expected_number() -> None:
    assert make_regression().to_prediction(Answer("2.0", {"2.0": 1.0}, 2.17)) == 2.17


@pytest.mark.parametrize("score", [-0.1, 5.01, "many", None, "", "nan", "1_0", "0x1", "2,5"])
def test_a_regression_truth_outside_the_range_is_refused(score: Any) -> None:
    with pytest.raises(HyperFormerError, match=f"column 'score' is {score!r}, expected a number from 0.0 to 5.0"):
        make_regression().read_label({"score": score})


def test_a_generated_answer_that_is_no_label_is_wrong() -> None:
    assert make_classification().to_prediction(Answer("perhaps", {})) == -1
    assert math.isnan(make_regression().to_prediction(Answer("five", {})))


def test_the_answer_of_a_generation_task_is_the_text_of_its_row() -> None:
    task = make_generation()
    assert task.make_example({"a": "x", "b": "A whole text."}) == Example("t", "x", "A whole text.")
    assert task.answers == []
    assert task.to_prediction(Answer("some text", {})) == "some text"


@pytest.mark.parametrize("text", ["", "  "])
def test_a_generation_row_without_a_text_is_refused(text: str | None) -> None:
    with pytest.raises(HyperFormerError, match=r"column 'b' is .*, expected a non-empty text"):
        make_generation().make_example({"a": "x", "b": text})


def test_exact_match_ignores_case_and_whitespace_only() -> None:
    metrics = make_generation().compute_metrics(["The film.", "a b", "a b"], ["the  film.", "ab", "a b"])
    assert metrics == {"exact_match": pytest.approx(200 / 3)}


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 1.0),
        ("the cat sat on the mat", "the mat sat", 2 * 1.0 * 2 / 6 / (2 / 3 + 2 / 6) * (2 / 3)),  # LCS 2 of 3 and of 6
        ("кот сидит", "кот спит", 0.5),  # words of any script
        ("a b", "c d", 0.0),
    ],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(
    truth: str, prediction: str, expected: float
) -> None:
    assert make_generation("rouge_l").compute_metrics([truth], [prediction])["rouge_l"] == pytest.approx(100 * expected)


def test_bleu_is_over_all_rows_and_ignores_case() -> None:
    truths = ["The cat sat on the mat .", "A dog barked at the moon ."]
    task = make_generation("bleu")
    assert task.compute_metrics(truths, [text.lower() for text in truths])["bleu"] == pytest.approx(100.0)
    assert task.compute_metrics(truths, list(reversed(truths)))["bleu"] < 20.0
    # precisions 6/7 7/7 …: one word of 14 is wrong, in 1 of 14 words, 2 of 12 pairs, 2 of 10 threes, 2 of 8 fours
    wrong = [truths[0], "A dog barked at the sun ."]
    precisions = [13 / 14, 10 / 12, 8 / 10, 6 / 8]
    assert task.compute_metrics(truths, wrong)["bleu"] == pytest.approx(100 * math.prod(precisions) ** 0.25)


def test_a_registered_name_cannot_be_taken_by_another_extension():
    from hyperformer.backbones import Backbone, register_backbone
    from hyperformer.export import Target, register_target
    from hyperformer.methods import METHODS, register_method
    from hyperformer.methods.adapters import AdapterSettings

    before = METHODS["adapters_multi_task"]
    with pytest.raises(ValueError, match="the method 'adapters_multi_task' is registered already"):
        register_method("adapters_multi_task", "mine", AdapterSettings, "elsewhere:Adapters")
    with pytest.raises(ValueError, match="the task kind 'regression' is registered already"):
        register_task("regression", RegressionSettings, Classification)
    with pytest.raises(ValueError, match="the model type 't5' is registered already"):
        register_backbone(Backbone, "t5")
    with pytest.raises(ValueError, match="the task kind 'generation' has an export target already"):
        register_target(Target, "generation")
    assert METHODS["adapters_multi_task"] == before


def test_a_kind_without_an_export_target_is_refused(monkeypatch):
    from hyperformer import export

    monkeypatch.delitem(export.TARGETS, "regression")
    with pytest.raises(HyperFormerError, match=r"no export target is registered for the kind 'regression'"):
        export.check_targets({"likeness": make_regression()})
