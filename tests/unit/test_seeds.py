"""The tables of the default run with several seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from experiments import seeds


def make_run(**baselines: Any) -> dict[str, Any]:
    return {"metrics": {"test": {"t": {"mean": 60.0}, "mean": {"mean": 60.0}}}, "baselines": {"t": baselines}}


@pytest.mark.parametrize(
    ("baselines", "overlap"),
    [
        ({"tfidf": {"mean": 40.0}, "overlap": {"mean": 50.0}, "notes": {}}, 50.0),
        ({"tfidf": {"mean": 40.0}}, 40.0),  # one text
        ({"tfidf": {"mean": 40.0}, "notes": {"overlap": "left out"}}, math.nan),
        ({"notes": {"tfidf": "left out"}}, math.nan),
    ],
)
def test_tfidf_replaces_the_overlap_only_of_a_task_with_one_text(baselines: dict[str, Any], overlap: float) -> None:
    assert seeds.value(make_run(**baselines), "t", "overlap") == pytest.approx(overlap, nan_ok=True)


def test_a_baseline_that_is_left_out_of_a_task_has_no_mean() -> None:
    run = make_run(majority={"mean": 50.0}, notes={"tfidf": "left out"})
    assert seeds.table([run, run]).splitlines()[2:] == [
        "| t | 60.0 ± 0.0 | 50.0 | left out | left out |",
        "| mean | 60.0 ± 0.0 | 50.0 | left out | left out |",
    ]
