"""Damage in the history of dvc.lock does not end the search for a bundle's commit."""

from __future__ import annotations

import sys

import pytest

from pipelines import lineage

LOCK = "stages: {export: {cmd: x, outs: [{path: data/06_models/onnx, md5: a.dir}]}}"


@pytest.mark.parametrize(
    "damaged", ["<<<<<<< HEAD\nstages:\n", "", "- a", "stages: [a]", "schema: '2.0'", "stages: {export: {cmd: ["]
)
def test_a_commit_with_a_damaged_lock_file_is_passed_over(tmp_path, monkeypatch, damaged):
    files = {"log": "one two", "ls-tree": "dvc.lock", "show": ""}
    commits = {"one:dvc.lock": damaged, "two:dvc.lock": LOCK}
    monkeypatch.setattr(lineage, "_git", lambda _, *a: commits[a[-1]] if a[0] == "show" else files[a[0]])
    monkeypatch.setattr(lineage, "_files", lambda *_: {"file"})
    assert [(commit, name) for commit, name, _, _ in lineage._exports(tmp_path)] == [("two", "export")]


def test_a_path_that_is_no_folder_is_reported_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["lineage", str(tmp_path / "file")])
    with pytest.raises(SystemExit, match=r"^Error: .*Not a directory: "):
        lineage.main()
