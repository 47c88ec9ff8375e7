"""Resume states and the fingerprints of their runs."""

from __future__ import annotations

import logging
import shutil

import pytest
from toys import train_settings

from hyperformer.core.errors import HyperFormerError
from hyperformer.training import states
from hyperformer.training.states import compute_fingerprint, prepare_state, remove_states


def test_the_state_of_the_same_run_is_reused_and_incompatible_states_are_removed(tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.txt").write_text("1")

    def state(seed=0, **changes):
        fingerprint = compute_fingerprint({"training": train_settings(**changes)}, {"rows": rows}, seed, 1)
        return prepare_state(tmp_path / "states", fingerprint)

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


def make_fingerprint(tmp_path, **changes):
    rows = tmp_path / "rows"
    rows.mkdir(exist_ok=True)
    (rows / "a.txt").write_text("1")
    return compute_fingerprint({"training": train_settings(**changes)}, {"rows": rows}, 0, 1)


def test_the_differences_of_an_incompatible_state_are_logged(tmp_path, caplog):
    prepare_state(tmp_path / "states", make_fingerprint(tmp_path, steps=8))
    with caplog.at_level(logging.INFO, logger="hyperformer.training"):
        prepare_state(tmp_path / "states", make_fingerprint(tmp_path, steps=9))
    assert "training.steps is 8 in the state and 9 now" in caplog.text


def test_a_state_of_another_folder_is_resumed(tmp_path):
    elsewhere = prepare_state(tmp_path / "elsewhere", make_fingerprint(tmp_path))
    (elsewhere / "kept").write_text("")
    fingerprint = make_fingerprint(tmp_path, resume_from=str(elsewhere))
    here = prepare_state(tmp_path / "states", fingerprint, elsewhere)
    assert here.name == elsewhere.name
    assert (here / "kept").exists()
    assert prepare_state(tmp_path / "elsewhere", fingerprint, elsewhere) == elsewhere
    assert (elsewhere / "kept").exists()


def test_an_incompatible_state_is_refused_with_the_difference_and_nothing_is_removed(tmp_path):
    other = prepare_state(tmp_path / "elsewhere", make_fingerprint(tmp_path, learning_rate=0.5))
    mine = prepare_state(tmp_path / "states", make_fingerprint(tmp_path))
    with pytest.raises(HyperFormerError, match=r"training\.learning_rate is 0\.5 in the state and 0\.01 now"):
        prepare_state(tmp_path / "states", make_fingerprint(tmp_path), other)
    assert mine.exists()
    assert other.exists()


def test_a_folder_without_a_state_is_refused(tmp_path):
    with pytest.raises(HyperFormerError, match=r"has no work\.json; expected a folder of resume states"):
        prepare_state(tmp_path / "states", make_fingerprint(tmp_path), tmp_path)


def test_a_copy_next_to_the_state_is_resumed_and_kept(tmp_path):
    fingerprint = make_fingerprint(tmp_path)
    mine = prepare_state(tmp_path / "states", fingerprint)
    copy = shutil.copytree(mine, tmp_path / "states" / "backup")
    (copy / "kept").write_text("")
    assert prepare_state(tmp_path / "states", fingerprint, copy) == mine
    assert (mine / "kept").exists()
    assert (copy / "kept").exists()


def test_files_among_the_states_are_not_removed(tmp_path):
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / "notes.txt").write_text("mine")
    prepare_state(tmp_path / "states", make_fingerprint(tmp_path))
    assert (tmp_path / "states" / "notes.txt").exists()


def test_a_state_whose_fingerprint_is_not_an_object_is_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "work.json").write_text("[1]")
    with pytest.raises(HyperFormerError, match=r"has no work\.json"):
        prepare_state(tmp_path / "states", make_fingerprint(tmp_path), other)


def test_no_files_of_states_are_left_to_resume_when_their_removal_is_killed(tmp_path, monkeypatch):
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
