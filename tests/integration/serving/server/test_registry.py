"""Tasks are added, changed and removed while they are in use, and invalid files change nothing."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import ADAPTER, BASE, GRAPH, MANIFEST
from hyperformer.serving.server.registry import Registry


@pytest.fixture
def reloads():
    return []


@pytest.fixture
def registry(copied, reloads):
    return Registry(copied, 1, "float32", lambda name, loaded: reloads.append((name, loaded)))


def test_unchanged_tasks_stay_loaded(registry, reloads):
    before = registry["mood"]
    registry.refresh()
    assert registry["mood"] is before
    assert reloads == []


def test_a_changed_task_is_reloaded_and_the_old_bundle_still_answers(registry, copied, reloads):
    before, other = registry["mood"], registry["mood3"]
    shutil.move(copied / "mood", copied.parent / "old")
    shutil.copytree(copied / "mood3", copied / "mood")
    registry.refresh()
    assert registry["mood"] is not before
    assert registry["mood"].manifest.task == "mood3"
    assert registry["mood3"] is other
    assert before({"sentence": "the film is dull"}).label in ("negative", "positive")
    assert reloads == [("mood", True)]


def test_invalid_files_change_nothing_and_the_index_has_the_reason(registry, copied, reloads):
    before = registry["mood"]
    with (copied / "mood" / GRAPH).open("ab") as file:
        file.write(b"x")
    registry.refresh()
    registry.refresh()
    assert registry["mood"] is before
    bundle, reason = registry.index()["mood"]
    assert bundle is before
    assert "is not the file that was exported" in reason
    assert reloads == [("mood", False)]


def test_a_new_task_is_added_and_a_missing_one_is_removed_at_the_second_check(registry, copied):
    shutil.copytree(copied / "mood", copied / "more")
    shutil.rmtree(copied / "mood3")
    registry.refresh()
    assert registry["more"]
    assert registry["mood3"]
    registry.refresh()
    assert registry["mood3"] is None
    assert set(registry.index()) == {"likeness", "mood", "more"}


def test_a_missing_root_changes_nothing_and_a_hidden_folder_is_no_task(registry, copied):
    shutil.copytree(copied / "mood", copied / ".half")
    registry.refresh()
    assert set(registry.index()) == {"likeness", "mood", "mood3"}
    copied.rename(copied.with_name("away"))
    for _ in range(3):
        registry.refresh()
    assert all(bundle for bundle, _ in registry.index().values())


def test_a_task_that_cannot_be_loaded_does_not_affect_the_others(copied):
    (copied / "mood" / GRAPH).unlink()
    registry = Registry(copied, 1, "float32")
    assert registry["mood"] is None
    assert "has no model.onnx" in registry.index()["mood"][1]
    assert registry["mood3"]


def test_a_folder_without_a_task_that_can_be_loaded_is_refused(copied, tmp_path):
    with pytest.raises(HyperFormerError, match=r"contains no exported tasks\. Use the folder that an export wrote"):
        Registry(tmp_path / "nowhere", 1, "float32")
    for graph in copied.glob(f"*/{GRAPH}"):
        graph.unlink()
    with pytest.raises(HyperFormerError, match=r"no task of .* can be loaded: .* has no model\.onnx"):
        Registry(copied, 1, "float32")


def write_published(folder, published):
    """Write the field `published` of a bundle's manifest."""
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, "published": published}))


@pytest.mark.parametrize("exported", ["bundles", "shared_base"])
def test_a_task_that_is_not_published_is_unavailable_unless_allowed(exported, request, tmp_path, caplog):
    root = shutil.copytree(request.getfixturevalue(exported), tmp_path / "root")
    write_published(root / "mood", False)
    registry = Registry(root, 1, "float32")
    assert registry["mood"] is None
    assert registry.index()["mood"][1].startswith("mood is not published, because the model of task 'mood' is no")
    assert "cannot load task mood: mood is not published" in caplog.text
    assert registry["mood3"]
    assert Registry(root, 1, "float32", allow_unpublished=True)["mood"]


def test_a_folder_without_a_published_task_is_refused(copied):
    for folder in copied.iterdir():
        write_published(folder, False)
    with pytest.raises(HyperFormerError, match=r"no task of .* can be loaded: likeness is not published"):
        Registry(copied, 1, "float32")


def test_a_served_task_stays_when_it_is_replaced_by_one_that_is_not_published(registry, copied, reloads):
    before = registry["mood"]
    write_published(copied / "mood", False)
    registry.refresh()
    assert registry["mood"] is before
    assert "is not published" in registry.index()["mood"][1]
    write_published(copied / "mood", True)
    registry.refresh()
    assert registry.index()["mood"][1] == ""
    assert reloads == [("mood", False), ("mood", True)]


def test_tasks_on_a_shared_base_are_reloaded_with_it(shared_base, tmp_path):
    root = tmp_path / "shared"
    shutil.copytree(shared_base, root)
    registry = Registry(root, 1, "float32")
    before = registry["mood"]
    registry.refresh()
    assert registry["mood"] is before
    (root / BASE).rename(root / "away")
    registry.refresh()
    assert registry.index()["mood"][1]
    (root / "away").rename(root / BASE)
    registry.refresh()
    assert registry.index()["mood"][1] == ""
    before = registry["mood"]
    content = (root / GRAPH).read_bytes()
    (root / GRAPH).write_bytes(content + b"x")
    registry.refresh()
    assert registry["mood"] is before
    assert "is not the file that was exported" in registry.index()["mood"][1]
    (root / GRAPH).unlink()
    (root / BASE).rename(root / "away")
    registry.refresh()
    assert registry["mood"] is before
    (root / "away").rename(root / BASE)
    (root / GRAPH).write_bytes(content)
    registry.refresh()
    assert registry["mood"] is not before
    assert registry.index()["mood"][1] == ""
    (root / "mood" / ADAPTER).write_bytes(b"")
    assert before({"sentence": "the film is dull"}).label  # a loaded task does not need its file


def test_a_file_overwritten_in_place_is_detected_at_equal_size_and_time(bundles, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(bundles, root)
    registry = Registry(root, 1, "float32")
    before, card = registry["mood"], root / "mood" / "README.md"
    content, status = card.read_bytes(), card.stat()
    card.write_bytes(content[::-1])
    os.utime(card, ns=(status.st_atime_ns, status.st_mtime_ns))
    registry.refresh()
    assert registry["mood"] is before
    assert "is not the file that was exported" in registry.index()["mood"][1]
