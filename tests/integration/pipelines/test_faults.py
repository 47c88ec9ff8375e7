"""Faults around a run: a full or read-only disk, kills, a second run, a clock that is set back."""

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

from hyperformer.core.files import sha256
from hyperformer.methods import METHODS
from hyperformer.tasks import TASK_TYPES

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
"""Outputs of each stage."""


def artifacts(data: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a run, except temporary files and measured times."""
    files = [path.relative_to(data) for path in sorted(data.rglob("*")) if path.is_file()]
    selected = [
        file for file in files if not any(part.startswith(".") for part in file.parts) and "times" not in file.parts
    ]
    return {str(file): sha256(data / file) for file in selected}


class Disk:
    """A small file system that is mounted at the data folder of a project."""

    def __init__(self, tree: Path) -> None:
        self.data = tree / "data" / "test"
        self.filler = self.data / ".filler"
        held = self.data.with_name("held")
        self.data.rename(held)
        self.data.mkdir()
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.data], capture_output=True, check=False
        )
        if result.returncode:
            pytest.skip(f"a file system cannot be mounted here: {result.stderr.decode().strip()}")
        shutil.copytree(held, self.data, dirs_exist_ok=True)
        shutil.rmtree(held)

    def fill(self, left: int) -> None:
        """Fill the disk, except for `left` bytes."""
        with self.filler.open("wb") as file:
            size = shutil.disk_usage(self.data).free - left
            file.write(b"0" * max(size, 0))

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.data], check=True)


@pytest.fixture
def disk(copy) -> Iterator[Disk]:
    mounted = None
    try:
        mounted = Disk(copy)
        yield mounted
    finally:
        if mounted is not None:
            subprocess.run(["umount", "-l", mounted.data], check=False)


def assert_refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 1, result.stdout[-3000:] + result.stderr[-3000:]
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert "Check the path, its permissions and free disk space, then run again" in last
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize("left", [0, 24576])
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_leaves_no_partial_file(disk, stage, left):
    expected = artifacts(disk.data)
    for output in STAGES[stage]:
        path = disk.data / output
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    disk.fill(left)
    result = kedro(disk.data.parents[1], "--tags", stage)
    if not (left and result.returncode == 0):  # a small output may still fit
        assert_refused(result, "No space left on device")
    actual = artifacts(disk.data)
    for output in STAGES[stage]:
        files = {name: code for name, code in expected.items() if name == output or name.startswith(f"{output}/")}
        assert {name: actual[name] for name in files if name in actual} in ({}, files), output
    disk.filler.unlink()
    result = kedro(disk.data.parents[1], "--tags", stage)
    assert result.returncode == 0, result.stderr[-3000:]
    assert artifacts(disk.data) == expected
    assert not list(disk.data.rglob(".*.new"))


def test_a_read_only_disk_is_reported_and_loses_nothing(disk):
    expected = artifacts(disk.data)
    disk.remount("ro")
    assert_refused(kedro(disk.data.parents[1], "--tags", "report"), "Read-only file system")
    disk.remount("rw")
    assert artifacts(disk.data) == expected


def test_a_second_run_in_one_folder_is_refused_and_the_first_continues(tree, copy, shared_traces):
    with kedro_fork(copy, "--tags", "export", traces_folder=shared_traces) as first:
        first.wait_for("equal to PyTorch")
        second = kedro(copy, "--tags", "report")
        assert first.complete().returncode == 0
    assert second.returncode == 1
    last = second.stderr.splitlines()[-1]
    assert last.startswith("Error: another run is at work in ")
    assert f"(kedro run --env test --tags export, pid {first.process.pid} on " in last
    assert last.endswith("Wait for it to end, stop it, or use another environment (--env).")
    assert artifacts(copy / "data" / "test") == artifacts(tree / "data" / "test")


def kill_after(copy: Path, moment: float, shared_traces: Path) -> int:
    """Kill a run after `moment` seconds, and return its exit status, also if it ended before that."""
    with kedro_fork(copy, traces_folder=shared_traces) as run:
        run.process.join(moment)
        run.kill()
    return run.process.exitcode


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_a_run_killed_at_any_moment_is_completed_by_the_next_run(copy, tmp_path, shared_traces, seed):
    expected = artifacts(copy / "data" / "test")
    backbone = copy / "data" / "test" / "06_models" / "backbone"
    moment = random.Random(seed).uniform(0.5, 8.0)
    status = 0
    while status != -signal.SIGKILL:  # on a fast machine the run may end before it is killed
        moved = shutil.move(backbone, tmp_path / "backbone")
        shutil.rmtree(copy / "data" / "test")
        shutil.move(moved, backbone)
        status = kill_after(copy, moment, shared_traces)
        assert status in (0, -signal.SIGKILL)
        moment /= 2
    result = kedro(copy)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert artifacts(copy / "data" / "test") == expected
    assert not list((copy / "data").rglob(".*.new"))
    assert not list((copy / "data").rglob(".*.old"))


SET_CLOCK_BACK = """
import time
_now, _start = time.time, time.monotonic()
time.time = lambda: _now() - (86400 * 365 if time.monotonic() - _start > 8 else 0)
"""


def test_a_clock_that_is_set_back_during_a_run_changes_nothing(tree, copy, tmp_path):
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(SET_CLOCK_BACK)
    for path in (copy / "data").rglob("*"):
        os.utime(path, (2e9, 2e9))  # existing files are from the future
    path = f"{tmp_path / 'clock'}:{os.environ.get('PYTHONPATH', '')}"
    result = kedro_process(copy, "--tags", "train,evaluate,report", PYTHONPATH=path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert artifacts(copy / "data" / "test") == artifacts(tree / "data" / "test")


def state() -> dict[str, object]:
    """Return the global state of this process that a run could change."""
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
        "registries": (dict(METHODS), dict(TASK_TYPES)),
        "threads": [thread.name for thread in threading.enumerate() if not thread.daemon],
    }


def test_runs_in_one_process_do_not_affect_each_other(tree, copy):
    before = state()
    params = "method=hyperformer,training.precision=bf16,seed=3,evaluation.num_beams=2"
    assert kedro(copy, "--tags", "train,evaluate", "--params", params).returncode == 0
    assert kedro(copy, "--tags", "train", "--params", "training.step=3").returncode == 1
    (copy / "data" / "test" / "03_primary" / "rows").rename(copy / "rows")
    assert kedro(copy, "--tags", "train").returncode == 1
    (copy / "rows").rename(copy / "data" / "test" / "03_primary" / "rows")
    after = state()
    for name, value in before.items():
        assert after[name] == value, name
    assert kedro(copy, "--tags", "train,evaluate,report").returncode == 0
    assert artifacts(copy / "data" / "test") == artifacts(tree / "data" / "test")
