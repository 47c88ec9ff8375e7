"""What a look through the rows of tasks finds."""

from __future__ import annotations

import pytest
from datasets import Dataset
from toys import task_settings

from hyperformer.config import BackboneSettings, Tasks
from hyperformer.data import SPLITS, write_rows
from hyperformer.data_profile import profile

NONE = {split: {"rows": 0, "removed": 0} for split in SPLITS}


@pytest.fixture
def found(tmp_path, backbone_folder):
    """The profile of rows, each split's, as one task of the toys."""

    def of(task, **splits):
        settings = Tasks({task: task_settings()[task]})
        rows = {split: Dataset.from_list(splits[split]) for split in SPLITS}
        write_rows({task: rows})(tmp_path)
        backbone = BackboneSettings(path=str(backbone_folder), max_source_tokens=64, max_target_tokens=8)
        return profile(tmp_path, settings, backbone, {task: {**NONE, "train": {"rows": 0, "removed": 3}}})[task]

    return of


def rows(count, label):
    return [{"sentence": f"a film {label} {'a' * number}", "label": label} for number in range(1, count + 1)]


def test_rows_without_a_fault_are_described(found, caplog):
    caplog.set_level("INFO", logger="hyperformer")
    split = rows(10, 0) + rows(10, 1)
    seen = found("mood", train=split, validation=split, test=split)
    assert seen["findings"] == []
    assert seen["splits"]["train"] == {
        "rows": 20, "removed": 3, "answers": {"negative": 10, "positive": 10},
        "tokens": seen["splits"]["train"]["tokens"],
        "cut": 0, "unknown": 0.0, "repeated": 0, "at_odds": 0, "empty": {"sentence": 0},
    }  # fmt: skip
    median, most, longest = seen["splits"]["train"]["tokens"]
    assert 0 < median <= most <= longest <= 64
    assert [example["answer"] for example in seen["examples"]] == ["negative"] * 3
    assert seen["examples"][0]["tokens"][-1] == "</s>"
    assert "mood, train: 20 rows (3 removed: they stand in a later split); negative 50%, positive 50%, " in caplog.text


def test_what_deserves_a_look_is_said_with_what_to_do(found, caplog):
    train = [
        *rows(30, 1),
        *rows(2, 1),
        {"sentence": "a film 1 a", "label": 0},
        {"sentence": " ", "label": 1},
        {"sentence": "a film " * 40, "label": 1},
        {"sentence": "\u0e01" * 40, "label": 1},
    ]
    seen = found("mood", train=train, validation=rows(3, 0), test=rows(3, 1))
    split = seen["splits"]["train"]
    assert (split["repeated"], split["at_odds"], split["cut"], split["empty"]) == (3, 1, 1, {"sentence": 1})
    longest = split["tokens"][-1]
    assert seen["findings"] == [
        "train: 1 of 36 rows have the answer 'negative'; give more, or leave the label out",
        "test: no row has the answer 'negative'; split the rows otherwise",
        "validation: no row has the answer 'positive'; split the rows otherwise",
        "train: 97% of the rows have the answer 'positive'; judge by f1 or matthews beside accuracy",
        f"train: 1 of 36 rows have more than 64 tokens and are cut (the longest has {longest}); raise "
        "backbone.max_source_tokens, or put what decides first",
        "train: 3 of 36 rows stood before in the split; leave them out",
        "train: 1 of 36 rows stood before with another answer; mend the labels",
        "train: 1 of 36 rows have no text in 'sentence'; fill it, or leave it out of the task's text",
        f"train: {split['unknown']:.1%} of the tokens are unknown characters; take a backbone that knows the language",
    ]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 9


def test_numbers_are_described_by_their_range(found):
    split = [{"a": "a film", "b": "a film" + " a" * number, "score": number % 3} for number in range(9)]
    seen = found("likeness", train=split, validation=split, test=split)
    assert seen["splits"]["test"]["numbers"] == [0.0, 1.0, 2.0]
    assert "answers" not in seen["splits"]["test"]
    assert seen["findings"] == []
