"""A folder with arbitrary files: a task with invalid files is unavailable, and the others are served."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import threading

import pytest
from serving import running

from hyperformer.core.manifest import BASE, MANIFEST
from hyperformer.runtime import Bundle
from hyperformer.serving.server.registry import Registry


def change(folder, **changes):
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, **changes}))


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


def run_with_timeout(function):
    """Return the result of a function, and fail if it does not return."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(20)
    assert results, "the function did not return"
    return results[0]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"bad\xff", r"bad\udcff"),
        (b"bad\nINFO  forged", r"bad\nINFO  forged"),
        (b"bad\x1b[2J", r"bad\x1b[2J"),
        ("bad\u2028line".encode(), r"bad\u2028line"),
        (rb"bad\name", r"bad\name"),
    ],
)
def test_an_invalid_name_is_unavailable_and_shown_escaped(copied, rows, caplog, name, shown):
    shutil.copytree(os.fsencode(copied / "mood"), os.path.join(os.fsencode(copied), name))
    with caplog.at_level(logging.INFO), running(copied) as server:
        status, index, _ = server.send("POST", "/v2/repository/index")
        assert status == 200
        entries = {entry["name"]: entry for entry in index}
        assert set(entries) == {"likeness", "mood", "mood3", shown}
        assert entries[shown]["state"] == "UNAVAILABLE"
        assert "expected printable UTF-8 without a backslash" in entries[shown]["reason"]
        server.app.state.registry.refresh()
        for path in ("/metrics", "/v2/health/ready", "/openapi.json"):
            assert server.send("GET", path)[0] == 200
        assert server.send("GET", "/v2/models/mod")[0] == 404
        assert server.infer("mood", rows["mood"][:1])[0] == 200
    lines = [record.getMessage() for record in caplog.records if shown in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].isprintable()


def test_names_of_any_script_are_tasks(copied):
    for name in ("Stimmung ä", "気分", "<b>&%2F"):
        shutil.copytree(copied / "mood", copied / name)
        assert Registry(copied, 1, "float32")[name]


@pytest.mark.parametrize("name", [MANIFEST, "model.onnx", "tokenizer.json", "more"])
def test_a_fifo_makes_its_task_unavailable_at_startup_until_it_is_removed(copied, name):
    saved = shutil.copytree(copied / "mood", copied.parent / "saved")
    (copied / "mood" / name).unlink(missing_ok=True)
    os.mkfifo(copied / "mood" / name)
    registry = run_with_timeout(lambda: Registry(copied, 1, "float32"))
    bundle, reason = registry.index()["mood"]
    assert bundle is None
    assert reason == f"mood/{name} is a FIFO, a socket or a device; expected a regular file. Remove it."
    assert registry["mood3"]
    shutil.rmtree(copied / "mood")
    saved.rename(copied / "mood")
    registry.refresh()
    assert registry["mood"]


def test_a_fifo_after_startup_changes_nothing_and_others_are_reloaded(copied):
    registry = Registry(copied, 1, "float32")
    before, other = registry["mood"], registry["mood3"]
    replace_by_fifo(copied / "mood" / MANIFEST)
    change(copied / "mood3", metrics={})
    run_with_timeout(registry.refresh)
    assert registry["mood"] is before
    assert "mood/manifest.json is a FIFO" in registry.index()["mood"][1]
    assert registry["mood3"] is not other


def test_a_socket_and_a_link_to_a_device_make_their_tasks_unavailable(copied):
    (copied / "mood" / MANIFEST).unlink()
    (copied / "mood" / MANIFEST).symlink_to("/dev/zero")
    os.mknod(copied / "mood3" / "s", stat.S_IFSOCK | 0o600)
    registry = run_with_timeout(lambda: Registry(copied, 1, "float32"))
    assert "mood/manifest.json is a FIFO, a socket or a device" in registry.index()["mood"][1]
    assert "mood3/s is a FIFO, a socket or a device" in registry.index()["mood3"][1]
    assert registry["likeness"]


def test_a_fifo_instead_of_the_base_keeps_the_loaded_tasks(shared_base, tmp_path):
    root = shutil.copytree(shared_base, tmp_path / "shared")
    registry = Registry(root, 1, "float32")
    before = registry["mood"]
    replace_by_fifo(root / BASE)
    run_with_timeout(registry.refresh)
    assert registry["mood"] is before
    assert registry.index()["mood"][1] == (
        "base.json is a FIFO, a socket or a device; expected a regular file. Remove it."
    )


@pytest.mark.parametrize("changes", [{"labels": ["\udcff", "b"]}, {"task": "mood\nINFO  forged"}])
def test_a_manifest_that_cannot_be_sent_makes_its_task_unavailable(copied, changes, caplog):
    change(copied / "mood", **changes)
    registry = Registry(copied, 1, "float32")
    assert registry["mood"] is None
    assert registry.index()["mood"][1].startswith("manifest.json h")
    assert registry.index()["mood"][1].isprintable()
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_an_unexpected_error_affects_one_task_only(copied, monkeypatch):
    initialize = Bundle.__init__

    def fail(self, folder, *arguments, **options):
        if folder.name == "mood":
            raise IndexError("list index out of range")
        initialize(self, folder, *arguments, **options)

    monkeypatch.setattr(Bundle, "__init__", fail)
    registry = Registry(copied, 1, "float32")
    assert registry.index()["mood"] == (None, "IndexError: list index out of range")
    assert registry["mood3"]


def test_no_response_contains_the_path_of_the_folder(copied):
    with running(copied) as server:
        registry = server.app.state.registry
        (copied / "mood" / "model.onnx").write_bytes(b"x")
        (copied / "mood3" / MANIFEST).write_text("{")
        (copied / "likeness" / "tokenizer.json").unlink()
        registry.refresh()
        answers = [server.send("POST", "/v2/repository/index")]
        assert all(entry["reason"] for entry in answers[0][1])
        for name, entry in registry._entries.items():
            entry.bundle = None
            answers += [server.send("GET", f"/v2/models/{name}"), server.send("POST", f"/v2/models/{name}/infer", {})]
        answers += [server.send("GET", "/v2/health/ready"), server.send("GET", "/v2/models/nothing")]
    assert [status for status, _, _ in answers] == [200, *[404] * 6, 503, 404]
    assert all(str(copied.parent) not in json.dumps(body) for _, body, _ in answers)
