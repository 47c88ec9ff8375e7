"""The quality check: whether the model of a task is better than a guess."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hyperformer.core.errors import HyperFormerError
from hyperformer.tasks import Task

MAJORITY = "majority"
"""Key of the baseline that predicts the most frequent label or, in a regression task, the mean."""
SPLIT = "validation"
"""Split that the check compares on; the test split takes no part in decisions."""


@dataclass(frozen=True)
class BelowMajority:
    """Mean validation metrics of a task whose model is not better than a guess, in percent."""

    model: float
    majority: float


def find_below_majority(
    metrics: Mapping[str, Any], baselines: Mapping[str, Any], tasks: Mapping[str, Task], allowed: Collection[str]
) -> dict[str, BelowMajority]:
    """Return the tasks whose mean validation metric is not above that of the majority baseline.

    Args:
        metrics: the model's metrics: split → task → metric → percent.
        baselines: the baselines' metrics: split → task → baseline → metric → percent.
        tasks: the tasks by name; generative tasks are not compared.
        allowed: names of tasks that are left out of the result.

    Raises:
        HyperFormerError: there are no metrics or no baselines of a task, as in files of an earlier version.
    """
    below = {}
    for name, task in tasks.items():
        for results, kind in ((metrics, "metrics"), (baselines, "baselines")):
            if name not in results.get(SPLIT, {}):
                raise HyperFormerError(
                    f"there are no {kind} of the task {name!r} on {SPLIT}; expected those of every task. Run the "
                    "pipelines that write them again."
                )
        model = metrics[SPLIT][name]["mean"]
        majority = baselines[SPLIT][name][MAJORITY]["mean"]
        if task.answers and name not in allowed and not model > majority:
            below[name] = BelowMajority(model, majority)
    return below


def check_quality(
    metrics: Mapping[str, Any], baselines: Mapping[str, Any], tasks: Mapping[str, Task], allowed: Collection[str]
) -> None:
    """Check that no task is below the majority; the arguments are those of `find_below_majority`.

    Raises:
        HyperFormerError: the mean validation metric of a task is not above that of the majority baseline.
    """
    below = find_below_majority(metrics, baselines, tasks, allowed)
    if below:
        listed = ", ".join(f"{name} {task.model:.2f} (majority {task.majority:.2f})" for name, task in below.items())
        constant = [name for name, task in below.items() if task.majority >= 100.0]
        reason = f" All validation rows of {', '.join(constant)} have one answer: change splits." if constant else ""
        raise HyperFormerError(
            f"Tasks not above the majority on validation: {listed}; expected a higher mean metric, in percent. Add "
            "rows, train longer (training.epochs or training.steps), or list the task in export.allow_below_majority."
            f"{reason}"
        )
