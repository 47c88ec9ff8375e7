"""Folders as artifacts, and the places that a node works in."""

from __future__ import annotations

import pytest
from kedro.io import DatasetError

from pipelines.datasets import FiguresDataset, FolderDataset, WorkplaceDataset


def filled(text):
    return lambda folder: (folder / "file").write_text(text)


def test_a_folder_takes_the_place_of_the_one_before_it(tmp_path):
    dataset = FolderDataset(str(tmp_path / "made"))
    for text in ("one", "two"):
        dataset.save(filled(text))
        assert (dataset.load() / "file").read_text() == text
        assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_library_writes_for_the_owner_alone_may_be_read_as_any_file(tmp_path):
    def owned(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "file").touch(mode=0o600)

    FolderDataset(str(tmp_path / "made")).save(owned)
    (tmp_path / "any").touch()
    assert (tmp_path / "made" / "inner" / "file").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_folder_that_cannot_be_filled_leaves_the_one_before_it(tmp_path):
    dataset = FolderDataset(str(tmp_path / "made"))
    dataset.save(filled("one"))

    def broken(folder):
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.save(broken)
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "file"]


def test_the_old_folder_is_whole_until_the_new_one_stands_in_its_place(tmp_path, monkeypatch):
    """Killed between the two, a run leaves none under the final name: never a half."""
    from pathlib import Path

    dataset, own = FolderDataset(str(tmp_path / "made")), Path.rename
    dataset.save(filled("one"))

    def killed(path, target):
        if path.name.endswith(".new"):
            raise KeyboardInterrupt
        return own(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        dataset.save(filled("two"))
    assert not (tmp_path / "made").exists()
    assert {(path.name, (path / "file").read_text()) for path in tmp_path.iterdir()} == {
        (".made.old", "one"),
        (".made.new", "two"),
    }
    monkeypatch.undo()
    dataset.save(filled("three"))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_workplace_that_is_a_file_is_said(tmp_path):
    (tmp_path / "place").write_text("")
    with pytest.raises(DatasetError, match=r"place cannot be used .*, expected a folder to work in; move away"):
        WorkplaceDataset(str(tmp_path / "place")).load()


def test_figures_are_previewed_as_kedro_viz_asks_for_it(tmp_path):
    import base64
    import inspect

    dataset = FiguresDataset(str(tmp_path / "figures"))

    def drawn(folder):
        (folder / "scores").mkdir()
        (folder / "scores" / "tasks.svg").write_text("<svg/>")
        (folder / "alone.svg").write_text("<svg>2</svg>")

    dataset.save(drawn)
    assert inspect.signature(dataset.preview).return_annotation == "HTMLPreview"
    code = base64.b64encode(b"<svg/>").decode()
    shown = dataset.preview()
    assert shown.endswith(
        f'<p><img alt="scores/tasks" style="max-width: 100%" src="data:image/svg+xml;base64,{code}"></p>'
    )
    assert shown.count("<img") == 2
