"""What goes wrong beside a run: a disk that fills or is read-only, kills, a second run, a clock set back."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import kedro, kedro_fork, kedro_process

from hyperformer.manifest import sha256
from hyperformer.methods import METHODS
from hyperformer.tasks import KINDS

STAGES = {
    "language": ["01_raw/embedded"],
    "preprocess": ["03_primary/rows", "03_primary/split_counts.json"],
    "train": ["05_model_input/tokens", "06_models/checkpoint", "08_reporting/history.json"],
    "evaluate": ["07_model_output/predictions", "08_reporting/metrics.json"],
    "baselines": ["08_reporting/baselines.json"],
    "parameter_counts": ["08_reporting/parameter_counts.json"],
    "export": ["06_models/onnx"],
    "report": ["08_reporting/results.md", "08_reporting/report.html", "08_reporting/figures"],
}
"""What each stage makes."""


def artifacts(data: Path) -> dict[str, str]:
    """The sha256 of every file that a run leaves under a final name, but for a machine's own figures."""
    files = [path.relative_to(data) for path in sorted(data.rglob("*")) if path.is_file()]
    kept = [
        file for file in files if not any(part.startswith(".") for part in file.parts) and "times" not in file.parts
    ]
    return {str(file): sha256(data / file) for file in kept}


class Disk:
    """A small file system of its own under a project's data."""

    def __init__(self, tree: Path) -> None:
        self.data = tree / "data" / "test"
        self.filler = self.data / ".filler"
        held = self.data.with_name("held")
        self.data.rename(held)
        self.data.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.data], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
        shutil.copytree(held, self.data, dirs_exist_ok=True)
        shutil.rmtree(held)

    def fill(self, left: int) -> None:
        """Takes all room but so many bytes."""
        with self.filler.open("wb") as file:
            room = shutil.disk_usage(self.data).free - left
            file.write(b"0" * max(room, 0))

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.data], check=True)


@pytest.fixture
def disk(copy) -> Iterator[Disk]:
    made = None
    try:
        made = Disk(copy)
        yield made
    finally:
        if made is not None:
            subprocess.run(["umount", "-l", made.data], check=False)


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert said in last
    assert "see to the place, its rights and its room, and run again" in last
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("left", [0, 24576])
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_leaves_nothing_half_written(disk, stage, left):
    whole = artifacts(disk.data)
    for place in STAGES[stage]:
        shutil.rmtree(disk.data / place) if (disk.data / place).is_dir() else (disk.data / place).unlink()
    disk.fill(left)
    done = kedro(disk.data.parents[1], "--tags", stage)
    if not (left and done.returncode == 0):  # what is small has room in what is left
        refused(done, "No space left on device")
    there = artifacts(disk.data)
    for place in STAGES[stage]:
        files = {name: code for name, code in whole.items() if name == place or name.startswith(f"{place}/")}
        assert {name: there[name] for name in files if name in there} in ({}, files), place
    disk.filler.unlink()
    done = kedro(disk.data.parents[1], "--tags", stage)
    assert done.returncode == 0, done.stderr[-3000:]
    assert artifacts(disk.data) == whole
    assert not list(disk.data.rglob(".*.new"))


def test_a_read_only_place_is_told_before_and_after_as_one_sentence(disk):
    whole = artifacts(disk.data)
    disk.remount("ro")
    refused(kedro(disk.data.parents[1], "--tags", "report"), "Read-only file system")
    disk.remount("rw")
    assert artifacts(disk.data) == whole


def test_a_second_run_in_one_folder_is_refused_and_the_first_goes_on(tree, copy, traced):
    with kedro_fork(copy, "--tags", "export", traced=traced) as first:
        first.wait_for("equal to torch")
        second = kedro(copy, "--tags", "report")
        assert first.complete().returncode == 0
    assert second.returncode == 1
    last = second.stderr.splitlines()[-1]
    assert last.startswith("Error: another run is at work in ")
    assert f"(kedro run --env test --tags export, pid {first.process.pid} on " in last
    assert last.endswith("Wait for it to end, stop it, or use another environment (--env).")
    assert artifacts(copy / "data" / "test") == artifacts(tree / "data" / "test")


def killed(copy: Path, moment: float, traced: Path) -> int:
    """Kill a whole run after `moment` seconds; its exit status, also where it has ended before."""
    with kedro_fork(copy, traced=traced) as run:
        run.process.join(moment)
        run.kill()
    return run.process.exitcode


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_a_run_killed_at_any_moment_is_made_whole_by_the_next(copy, tmp_path, traced, seed):
    whole = artifacts(copy / "data" / "test")
    backbone = copy / "data" / "test" / "06_models" / "backbone"
    moment = random.Random(seed).uniform(0.5, 8.0)
    ended = 0
    while ended != -signal.SIGKILL:  # on a fast machine the run may end before its moment
        kept = shutil.move(backbone, tmp_path / "backbone")
        shutil.rmtree(copy / "data" / "test")
        shutil.move(kept, backbone)
        ended = killed(copy, moment, traced)
        assert ended in (0, -signal.SIGKILL)
        moment /= 2
    done = kedro(copy)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert artifacts(copy / "data" / "test") == whole
    assert not list((copy / "data").rglob(".*.new"))
    assert not list((copy / "data").rglob(".*.old"))


BACK = """
import time
_now, _began = time.time, time.monotonic()
time.time = lambda: _now() - (86400 * 365 if time.monotonic() - _began > 8 else 0)
"""


def test_a_clock_that_is_set_back_meanwhile_changes_nothing(tree, copy, tmp_path):
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(BACK)
    for path in (copy / "data").rglob("*"):
        os.utime(path, (2e9, 2e9))  # and what is there comes from the future
    path = f"{tmp_path / 'clock'}:{os.environ.get('PYTHONPATH', '')}"
    done = kedro_process(copy, "--tags", "train,evaluate,report", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert artifacts(copy / "data" / "test") == artifacts(tree / "data" / "test")


def state() -> dict[str, object]:
    """Return the state of this process that one run could change for another."""
    names = ["", "kedro", "kedro.runner", "hyperformer", "hyperformer.training", "pipelines"]
    return {
        "folder": Path.cwd(),
        "environment": dict(os.environ),
        "paths": sys.path[:],
        "arguments": sys.argv[:],
        "log": {name: (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in names},
        "warnings": warnings.filters[:],
        "random": (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())),
        "torch": (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()),
        "registries": (dict(METHODS), dict(KINDS)),
        "threads": [thread.name for thread in threading.enumerate() if not thread.daemon],
    }


def test_runs_in_one_process_change_nothing_for_each_other(tree, copy):
    before = state()
    other = "method=hyperformer,training.precision=bf16,seed=3,evaluation.num_beams=2"
    assert kedro(copy, "--tags", "train,evaluate", "--params", other).returncode == 0
    assert kedro(copy, "--tags", "train", "--params", "training.step=3").returncode == 1
    (copy / "data" / "test" / "03_primary" / "rows").rename(copy / "rows")
    assert kedro(copy, "--tags", "train").returncode == 1
    (copy / "rows").rename(copy / "data" / "test" / "03_primary" / "rows")
    after = state()
    for name, value in before.items():
        assert after[name] == value, name
    assert kedro(copy, "--tags", "train,evaluate,report").returncode == 0
    assert artifacts(copy / "data" / "test") == artifacts(tree / "data" / "test")
