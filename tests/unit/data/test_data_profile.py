"""Profiles of the rows of tasks."""

from __future__ import annotations

import pytest
from datasets import Dataset
from toys import task_settings

from hyperformer.core.language import MULTILINGUAL
from hyperformer.core.types import SPLITS
from hyperformer.data.profile import profile_rows
from hyperformer.data.storage import write_rows
from hyperformer.settings import BackboneSettings, Tasks

NONE = {split: {"rows": 0, "removed": 0} for split in SPLITS}


@pytest.fixture
def profile_of(tmp_path, backbone_folder):
    """Return a function that profiles the rows of each split as a toy task."""

    def profile_task(task, **splits):
        settings = Tasks({task: task_settings()[task]})
        rows = {split: Dataset.from_list(splits[split]) for split in SPLITS}
        write_rows({task: rows})(tmp_path)
        backbone = BackboneSettings(path=str(backbone_folder), max_source_tokens=64, max_target_tokens=8)
        return profile_rows(tmp_path, settings, backbone, {task: {**NONE, "train": {"rows": 0, "removed": 3}}})[task]

    return profile_task


def make_rows(count, label):
    return [{"sentence": f"a film {label} {'a' * number}", "label": label} for number in range(1, count + 1)]


def test_rows_without_a_problem_are_summarized(profile_of, caplog):
    caplog.set_level("INFO", logger="hyperformer")
    split = make_rows(10, 0) + make_rows(10, 1)
    report = profile_of("mood", train=split, validation=split, test=split)
    assert report["findings"] == []
    assert report["splits"]["train"] == {
        "rows": 20, "removed": 3, "answers": {"negative": 10, "positive": 10},
        "tokens": report["splits"]["train"]["tokens"],
        "cut": 0, "unknown": 0.0, "repeated": 0, "at_odds": 0, "empty": {"sentence": 0},
    }  # fmt: skip
    median, percentile, longest = report["splits"]["train"]["tokens"]
    assert 0 < median <= percentile <= longest <= 64
    assert [example["answer"] for example in report["examples"]] == ["negative"] * 3
    assert report["examples"][0]["tokens"][-1] == "</s>"
    assert (
        "mood, train: 20 rows (3 removed as duplicates of a later split); negative 50%, positive 50%, " in caplog.text
    )


def test_each_problem_is_reported_with_advice(profile_of, caplog):
    train = [
        *make_rows(30, 1),
        *make_rows(2, 1),
        {"sentence": "a film 1 a", "label": 0},
        {"sentence": " ", "label": 1},
        {"sentence": "a film " * 40, "label": 1},
        {"sentence": "\u0e01" * 40, "label": 1},
    ]
    report = profile_of("mood", train=train, validation=make_rows(3, 0), test=make_rows(3, 1))
    split = report["splits"]["train"]
    assert (split["repeated"], split["at_odds"], split["cut"], split["empty"]) == (3, 1, 1, {"sentence": 1})
    longest = split["tokens"][-1]
    assert report["findings"] == [
        "train: 1 of 36 rows have the answer 'negative'; add rows, or use `merge_labels`",
        "test: no row has the answer 'negative'; change the splits",
        "validation: no row has the answer 'positive'; change the splits",
        "train: 97% of the rows have the answer 'positive'; use f1 or matthews besides accuracy",
        f"train: 1 of 36 rows have more than 64 tokens and are truncated (the longest has {longest}); "
        "increase backbone.max_source_tokens, or move the decisive text to the front",
        "train: 3 of 36 rows repeat the text of an earlier row of the split; remove them",
        "train: 1 of 36 rows repeat the text of an earlier row with a different answer; fix the labels",
        "train: 1 of 36 rows have no text in 'sentence'; fill the column, or remove it from the task's text",
        f"train: {split['unknown']:.1%} of the tokens are unknown; use a backbone for the language of the rows, such "
        f"as {MULTILINGUAL}",
    ]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 9


def test_numbers_are_summarized_by_their_range(profile_of):
    split = [{"a": "a film", "b": "a film" + " a" * number, "score": number % 3} for number in range(9)]
    report = profile_of("likeness", train=split, validation=split, test=split)
    assert report["splits"]["test"]["numbers"] == [0.0, 1.0, 2.0]
    assert "answers" not in report["splits"]["test"]
    assert report["findings"] == []
