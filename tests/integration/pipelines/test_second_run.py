"""Two runs in one data folder: the second is refused, with the command of the first, and nothing is deleted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml

from pipelines.curves import start_curves
from pipelines.datasets import FolderDataset, JSONDataset, TextDataset
from pipelines.hooks import RunLock

ROOT = Path(__file__).parents[3]
STAGE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from pipelines.datasets import FolderDataset, JSONDataset
from pipelines.hooks import RunLock
lock, config = RunLock(), {"globals": {"data": "data"}, "parameters": {}}
lock.after_context_created(SimpleNamespace(project_path=Path.cwd(), config_loader=config))
next(lock.before_pipeline_run())
FolderDataset("data/03_primary/rows").save(lambda folder: (folder / "new").write_text("new"))
JSONDataset(filepath="data/03_primary/split_counts.json").save("new")
lock.after_pipeline_run()
"""


def acquire(project: Path, **training: Any) -> RunLock:
    """Lock the data folder of a project, as a run does before its first node."""
    lock, config = RunLock(), {"globals": {"data": "data"}, "parameters": {"training": training}}
    lock.after_context_created(SimpleNamespace(project_path=project, config_loader=config))
    next(lock.before_pipeline_run())
    return lock


@contextmanager
def running(project: Path, **training: Any) -> Iterator[None]:
    lock = acquire(project, **training)
    try:
        yield
    finally:
        lock.after_pipeline_run()


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def project(tmp_path) -> Path:
    """Return a DVC project with the outputs of the stage `preprocess`; its command locks the data folder.

    DVC links outputs to its cache here, read-only, so that writing into an output would change the cache.
    """
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["preprocess"]
    stages = {"preprocess": {"cmd": f"{sys.executable} stage.py", "deps": ["stage.py"], "outs": stage["outs"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\nno_scm = true\n[cache]\ntype = hardlink\n")
    (tmp_path / "data" / "03_primary" / "rows").mkdir(parents=True)
    (tmp_path / "data" / "03_primary" / "rows" / "old").write_text("old")
    (tmp_path / "data" / "03_primary" / "split_counts.json").write_text('"old"')
    return tmp_path


def repro(project: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(["dvc", "repro"], cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_dvc_repro_deletes_nothing_during_another_run_and_replaces_everything_after_it(project):
    primary = project / "data" / "03_primary"
    with running(project):
        refused = repro(project)
        assert refused.returncode != 0
        assert contents(primary) == {"rows/old": "old", "split_counts.json": '"old"'}
        assert f"anotherrunisatworkin{project / 'data'}(" in "".join(refused.stderr.split())  # lines are wrapped
        assert f", pid {os.getpid()} on " in refused.stderr
        assert not (project / "dvc.lock").exists()
    result = repro(project)
    assert result.returncode == 0, result.stdout + result.stderr
    assert contents(primary) == {"rows/new": "new", "split_counts.json": '"new"'}

    # Save as `kedro run` does.
    FolderDataset(str(primary / "rows")).save(lambda folder: (folder / "new").write_text("newer"))
    JSONDataset(filepath=str(primary / "split_counts.json")).save("newer")
    cache = [file for file in (project / ".dvc" / "cache" / "files" / "md5").rglob("*") if file.is_file()]
    assert len(cache) == 3  # two files and the listing of a folder
    for file in cache:
        checksum = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        assert f"{file.parent.name}{file.stem}" == checksum


def test_each_refused_run_names_the_active_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/kedro", "run", "--env", "base", "--tags", "train"])
    with running(tmp_path):
        monkeypatch.setattr(sys, "argv", ["/bin/kedro", "run", "--params", "a=\nb"])
        for _ in range(2):
            with pytest.raises(click.ClickException) as error:
                acquire(tmp_path)
            assert f"{tmp_path / 'data'} (kedro run --env base --tags train, pid {os.getpid()} on" in str(error.value)
            assert "\n" not in str(error.value)
    with running(tmp_path), pytest.raises(click.ClickException, match=r"\(kedro run --params a= b, pid"):
        acquire(tmp_path)


def test_what_a_killed_run_wrote_to_the_lock_file_is_not_reported(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".lock").write_text(f"kedro run --tags stale, pid 1, {'since long ago ' * 20}\n")
    with running(tmp_path):
        with pytest.raises(click.ClickException, match=f"pid {os.getpid()} on") as error:
            acquire(tmp_path)
        assert "--tags stale" not in str(error.value)
        assert "long ago" not in str(error.value)


def test_a_run_that_has_not_yet_written_its_line_still_refuses(tmp_path):
    with running(tmp_path):
        (tmp_path / "data" / ".lock").write_text("")
        with pytest.raises(click.ClickException, match=r"at work in \S+/data; expected a data folder that no run uses"):
            acquire(tmp_path)


def test_machines_of_one_training_share_a_folder_and_refuse_others(tmp_path):
    with running(tmp_path, machines=2):
        with running(tmp_path, machines=2), pytest.raises(click.ClickException, match="another run is at work"):
            acquire(tmp_path)
        with pytest.raises(click.ClickException, match="another run is at work"):
            acquire(tmp_path, machines=1)
    with running(tmp_path), pytest.raises(click.ClickException, match="another run is at work"):
        acquire(tmp_path, machines=2)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_saving_replaces_a_link_into_the_cache_and_never_writes_through_it(tmp_path, link):
    cached, data = tmp_path / "kept", tmp_path / "data"
    cached.write_text('"kept"')
    cached.chmod(0o444)
    (data / "folder").mkdir(parents=True)
    for name in ("folder/file", "folder/stale", "json", "text"):
        link(cached, data / name)
    FolderDataset(str(data / "folder")).save(lambda folder: (folder / "file").write_text("new"))
    JSONDataset(filepath=str(data / "json")).save("new")
    TextDataset(filepath=str(data / "text")).save("new")
    assert contents(data) == {"folder/file": "new", "json": '"new"', "text": "new"}
    assert (cached.read_text(), cached.stat().st_mode & 0o777, cached.stat().st_nlink) == ('"kept"', 0o444, 1)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_curves_replace_links_into_the_cache(tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    folder, cached = tmp_path / "curves", tmp_path / "kept"
    cached.write_text("kept")
    (folder / "plots" / "metrics" / "loss").mkdir(parents=True)
    for name in ("metrics.json", "plots/metrics/loss/a.tsv", "plots/metrics/stale.tsv"):
        link(cached, folder / name)
    start_curves(folder)(1, {"loss/a": 2.0})
    assert cached.read_text() == "kept"
    assert contents(folder).keys() == {"metrics.json", "plots/metrics/loss/a.tsv"}
