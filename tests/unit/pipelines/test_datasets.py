"""Datasets of folders: those that a node saves, and those that it works in."""

from __future__ import annotations

import pytest
from kedro.io import DatasetError

from pipelines.datasets import FolderDataset, SVGFolderDataset, WorkingFolderDataset


def writer(text):
    return lambda folder: (folder / "file").write_text(text)


def test_a_saved_folder_replaces_the_previous_one(tmp_path):
    dataset = FolderDataset(str(tmp_path / "made"))
    for text in ("one", "two"):
        dataset.save(writer(text))
        assert (dataset.load() / "file").read_text() == text
        assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_files_that_only_their_owner_may_read_get_the_usual_permissions(tmp_path):
    def write_private_file(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "file").touch(mode=0o600)

    FolderDataset(str(tmp_path / "made")).save(write_private_file)
    (tmp_path / "any").touch()
    assert (tmp_path / "made" / "inner" / "file").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_folder_that_cannot_be_filled_leaves_the_previous_one(tmp_path):
    dataset = FolderDataset(str(tmp_path / "made"))
    dataset.save(writer("one"))

    def write_and_fail(folder):
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.save(write_and_fail)
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "file"]


def test_the_previous_folder_is_complete_until_the_new_one_replaces_it(tmp_path, monkeypatch):
    """A run that is killed between the two renames leaves no folder under the final name, never a partial one."""
    from pathlib import Path

    dataset, rename = FolderDataset(str(tmp_path / "made")), Path.rename
    dataset.save(writer("one"))

    def fail_on_new(path, target):
        if path.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with pytest.raises(KeyboardInterrupt):
        dataset.save(writer("two"))
    assert not (tmp_path / "made").exists()
    assert {(path.name, (path / "file").read_text()) for path in tmp_path.iterdir()} == {
        (".made.old", "one"),
        (".made.new", "two"),
    }
    monkeypatch.undo()
    dataset.save(writer("three"))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_working_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "place").write_text("")
    with pytest.raises(DatasetError, match=r"cannot create .*place \(.*\); expected a writable folder"):
        WorkingFolderDataset(str(tmp_path / "place")).load()


def test_figures_are_previewed_as_kedro_viz_expects(tmp_path):
    import base64
    import inspect

    dataset = SVGFolderDataset(str(tmp_path / "figures"))

    def write_figures(folder):
        (folder / "scores").mkdir()
        (folder / "scores" / "tasks.svg").write_text("<svg/>")
        (folder / "alone.svg").write_text("<svg>2</svg>")

    dataset.save(write_figures)
    assert inspect.signature(dataset.preview).return_annotation == "HTMLPreview"
    code = base64.b64encode(b"<svg/>").decode()
    preview = dataset.preview()
    assert preview.endswith(
        f'<p><img alt="scores/tasks" style="max-width: 100%" src="data:image/svg+xml;base64,{code}"></p>'
    )
    assert preview.count("<img") == 2
