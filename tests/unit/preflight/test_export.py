"""The settings of an export name tasks and labels that exist, and give a task distinct labels."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import ValidationError
from toys import task_settings

from hyperformer.core.errors import HyperFormerError
from hyperformer.preflight.export import check_openvino, check_task_names
from hyperformer.settings import ExportSettings, Tasks
from hyperformer.tasks import make_tasks

WRITE = {"text": "{a}", "kind": "generation", "label_column": "b", "metrics": ["exact_match"]}
TASKS = make_tasks(Tasks.model_validate({**task_settings(), "write": WRITE}))


def make_settings(**changes: Any) -> ExportSettings:
    return ExportSettings(opset=18, tolerance=1e-4, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"allow_below_majority": ["moood"]},
            r"^export.allow_below_majority has the unknown task 'moood'; did you mean 'mood'\?$",
        ),
        ({"label_names": {"mod": {}}}, r"^export.label_names has the unknown task 'mod'; did you mean 'mood'\?$"),
        (
            {"label_names": {"mood": {"posit": "good"}}},
            r"^export.label_names.mood has the unknown label 'posit'; did you mean 'positive'\?$",
        ),
        (
            {"label_names": {"mood": {"1": "good"}}},
            r"^export.label_names.mood has the unknown label '1'; expected one of negative, positive$",
        ),
        (
            {"label_names": {"likeness": {"0": "none"}}},
            r"has the regression task 'likeness'; expected a classification",
        ),
        ({"label_names": {"write": {"a": "b"}}}, r"has the generation task 'write'; expected a classification task"),
        (
            {"label_names": {"mood": {"positive": "negative"}}},
            r"^export.label_names.mood shows both 'negative' and 'positive' as 'negative'; expected a different name",
        ),
        (
            {"label_names": {"mood3": {"good": "x", "neither": "x"}}},
            r"^export.label_names.mood3 shows both 'good' and 'neither' as 'x'; expected a different name",
        ),
    ],
)
def test_a_wrong_task_or_label_is_named(changes, message):
    with pytest.raises(HyperFormerError, match=message):
        check_task_names(make_settings(**changes), TASKS)


def test_labels_may_exchange_their_names():
    names = {"mood": {"positive": "negative", "negative": "positive"}}
    check_task_names(make_settings(label_names=names, allow_below_majority=["write", "mood"]), TASKS)


@pytest.mark.parametrize("names", [{"positive": ""}, {"positive": 1}, {"positive": True}, {1: "good"}, ["good"]])
def test_a_name_that_is_empty_or_not_a_string_is_invalid(names):
    with pytest.raises(ValidationError, match="label_names"):
        make_settings(label_names={"mood": names})


def test_openvino_must_be_installed_if_the_export_is_to_compare_it(monkeypatch):
    check_openvino(make_settings(openvino=True))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    check_openvino(make_settings())
    with pytest.raises(HyperFormerError, match=r"^export.openvino is true; expected the package openvino"):
        check_openvino(make_settings(openvino=True))
