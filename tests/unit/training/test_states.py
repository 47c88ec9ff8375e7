"""Resume states and the work that they are of."""

from __future__ import annotations

import logging
import shutil

import pytest
from toys import train_settings

from hyperformer.training import states
from hyperformer.training.states import fresh_state, remove_states, work_of
from hyperformer.types import HyperFormerError


def test_the_state_of_the_same_work_is_found_again_and_of_other_work_removed(tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.txt").write_text("1")

    def state(seed=0, **changes):
        return fresh_state(tmp_path / "states", work_of({"training": train_settings(**changes)}, {"rows": rows}, seed))

    first = state()
    (first / "kept").write_text("")
    assert state() == first
    assert (first / "kept").exists()
    assert state(seed=1) != first
    assert not first.exists()
    assert state(steps=9) != state()
    before = state()
    (rows / "a.txt").write_text("2")
    assert state() != before
    assert len(list((tmp_path / "states").iterdir())) == 1


def a_state(tmp_path, **changes):
    rows = tmp_path / "rows"
    rows.mkdir(exist_ok=True)
    (rows / "a.txt").write_text("1")
    return work_of({"training": train_settings(**changes)}, {"rows": rows}, 0)


def test_what_differs_is_said_where_a_state_is_not_used(tmp_path, caplog):
    fresh_state(tmp_path / "states", a_state(tmp_path, steps=8))
    with caplog.at_level(logging.INFO, logger="hyperformer.training"):
        fresh_state(tmp_path / "states", a_state(tmp_path, steps=9))
    assert "training.steps is 8 there and 9 here" in caplog.text


def test_a_state_from_elsewhere_is_taken_over(tmp_path):
    elsewhere = fresh_state(tmp_path / "elsewhere", a_state(tmp_path))
    (elsewhere / "kept").write_text("")
    work = a_state(tmp_path, resume_from=str(elsewhere))
    here = fresh_state(tmp_path / "states", work, elsewhere)
    assert here.name == elsewhere.name
    assert (here / "kept").exists()
    assert fresh_state(tmp_path / "elsewhere", work, elsewhere) == elsewhere
    assert (elsewhere / "kept").exists()


def test_a_state_of_other_work_is_refused_with_the_difference_and_nothing_is_removed(tmp_path):
    other = fresh_state(tmp_path / "elsewhere", a_state(tmp_path, learning_rate=0.5))
    mine = fresh_state(tmp_path / "states", a_state(tmp_path))
    with pytest.raises(HyperFormerError, match=r"training\.learning_rate is 0\.5 there and 0\.01 here"):
        fresh_state(tmp_path / "states", a_state(tmp_path), other)
    assert mine.exists()
    assert other.exists()


def test_a_folder_that_holds_no_state_is_refused(tmp_path):
    with pytest.raises(HyperFormerError, match=r"holds no work\.json; expected a folder of resume states"):
        fresh_state(tmp_path / "states", a_state(tmp_path), tmp_path)


def test_a_copy_beside_the_state_is_taken_over_and_kept(tmp_path):
    work = a_state(tmp_path)
    mine = fresh_state(tmp_path / "states", work)
    copy = shutil.copytree(mine, tmp_path / "states" / "backup")
    (copy / "kept").write_text("")
    assert fresh_state(tmp_path / "states", work, copy) == mine
    assert (mine / "kept").exists()
    assert (copy / "kept").exists()


def test_plain_files_among_the_states_are_let_be(tmp_path):
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / "notes.txt").write_text("mine")
    fresh_state(tmp_path / "states", a_state(tmp_path))
    assert (tmp_path / "states" / "notes.txt").exists()


def test_a_state_whose_work_is_no_table_is_none(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "work.json").write_text("[1]")
    with pytest.raises(HyperFormerError, match=r"holds no work\.json"):
        fresh_state(tmp_path / "states", a_state(tmp_path), other)


def test_no_part_of_states_is_left_to_resume_when_their_removal_is_killed(tmp_path, monkeypatch):
    state = tmp_path / "states" / "train" / "a" / "1"
    state.mkdir(parents=True)
    (state / "best.safetensors").write_text("")
    (state / "history.json").write_text("")

    def killed(folder, **_):
        if folder.exists():
            next(folder.rglob("best.safetensors")).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(states.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_states(tmp_path / "states" / "train")
    assert not (tmp_path / "states" / "train").exists()
    monkeypatch.undo()
    (tmp_path / "states" / "train").mkdir()
    remove_states(tmp_path / "states" / "train")
    remove_states(tmp_path / "states" / "train")
    assert list((tmp_path / "states").iterdir()) == []
