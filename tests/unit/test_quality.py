"""The quality check names each task whose model is not better than a guess on validation."""

from __future__ import annotations

from typing import Any

import pytest
from toys import make_pair_task, task_settings

from hyperformer.core.errors import HyperFormerError
from hyperformer.quality import BelowMajority, check_quality, find_below_majority
from hyperformer.settings import Tasks
from hyperformer.tasks import make_tasks

TASKS = make_tasks(Tasks(task_settings()))
WRITE = make_pair_task(kind="generation", label_column="second", text="say {first}", metrics=["exact_match"])


def make_metrics(**means: float) -> dict[str, Any]:
    """Make metrics by split; on test, every task is perfect."""
    return {
        "validation": {name: {"mean": mean} for name, mean in means.items()},
        "test": {name: {"mean": 100.0} for name in means},
    }


def make_baselines(**means: float) -> dict[str, Any]:
    """Make baselines of which only the majority is compared."""
    return {
        split: {name: {"majority": {"mean": mean}, "tfidf": {"mean": 99.0}} for name, mean in means.items()}
        for split in ("validation", "test")
    }


BASELINES = make_baselines(mood=50.0, mood3=40.0, likeness=0.0)


def test_a_model_above_the_majority_of_every_task_passes() -> None:
    metrics = make_metrics(mood=50.1, mood3=41.0, likeness=3.0)
    assert find_below_majority(metrics, BASELINES, TASKS, ()) == {}
    check_quality(metrics, BASELINES, TASKS, ())


def test_an_equal_or_lower_score_on_validation_is_found_with_both_figures() -> None:
    metrics = make_metrics(mood=50.0, mood3=12.0, likeness=3.0)
    assert find_below_majority(metrics, BASELINES, TASKS, ()) == {
        "mood": BelowMajority(50.0, 50.0),
        "mood3": BelowMajority(12.0, 40.0),
    }


def test_a_score_that_is_no_number_is_not_above_the_majority() -> None:
    metrics = make_metrics(mood=float("nan"), mood3=41.0, likeness=3.0)
    assert set(find_below_majority(metrics, BASELINES, TASKS, ())) == {"mood"}


def test_the_error_names_every_task_and_what_to_do() -> None:
    with pytest.raises(HyperFormerError) as error:
        check_quality(make_metrics(mood=50.0, mood3=12.345, likeness=-1.0), BASELINES, TASKS, ["likeness"])
    assert str(error.value) == (
        "Tasks not above the majority on validation: mood 50.00 (majority 50.00), mood3 12.35 (majority 40.00); "
        "expected a higher mean metric, in percent. Add rows, train longer (training.epochs or training.steps), or "
        "list the task in export.allow_below_majority."
    )


def test_allowed_and_generative_tasks_are_not_compared() -> None:
    metrics = make_metrics(mood=10.0, mood3=10.0, likeness=-1.0)
    check_quality(metrics, BASELINES, TASKS, list(TASKS))
    check_quality(make_metrics(t=0.0), make_baselines(t=5.0), {"t": WRITE}, ())


def test_results_that_lack_a_task_or_have_another_shape_are_refused() -> None:
    metrics = make_metrics(mood=60.0, mood3=60.0)
    for baselines, message in (
        (BASELINES, "there are no metrics of the task 'likeness' on validation; expected"),
        ({"mood": {"majority": {"mean": 50.0}}}, "there are no baselines of the task 'mood' on validation; expected"),
    ):
        with pytest.raises(HyperFormerError, match=message):
            check_quality(metrics, baselines, TASKS, ())
