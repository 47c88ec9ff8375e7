"""The number of CPUs that a process may use, and the threads that follow from it."""

from __future__ import annotations

import os

import pytest
import torch

from hyperformer.core import cpus
from hyperformer.core.cpus import count_cpus, limit_spinning, use_threads


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a function that writes files below a root, for a process whose affinity is 8 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def write_quota(root, groups, files):
    root(proc__self__cgroup=groups)
    return root(**{f"sys/fs/cgroup/{name}": text for name, text in files.items()})


def test_without_cgroups_the_affinity_counts(root):
    assert count_cpus(root()) == 8


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1)]
)
def test_a_quota_of_version_2_is_rounded_up(root, quota, expected):
    assert count_cpus(write_quota(root, "0::/job\n", {"job/cpu.max": quota})) == expected


def test_the_smallest_quota_of_a_group_and_its_ancestors_counts(root):
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "600000 100000"}
    assert count_cpus(write_quota(root, "0::/a/b\n", files)) == 3


def test_a_container_has_its_quota_at_the_root_of_the_mount(root):
    assert count_cpus(write_quota(root, "0::/docker/0123\n", {"cpu.max": "250000 100000"})) == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("400000", 4), ("50000", 1), ("1600000", 8)])
def test_a_quota_of_version_1_is_read(root, quota, expected):
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": quota, "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}
    groups = "7:memory:/job\n3:cpu,cpuacct:/job\n0::/\n"
    assert count_cpus(write_quota(root, groups, files)) == expected


@pytest.mark.parametrize("quota", ["", "many 100000", "100000 0", "100000"])
def test_a_quota_that_is_not_understood_is_ignored(root, quota):
    assert count_cpus(write_quota(root, "0::/job\n", {"job/cpu.max": quota})) == 8


@pytest.fixture
def environment(monkeypatch):
    """Restore the number of threads of PyTorch and of the environment after the test."""
    before = torch.get_num_threads()
    monkeypatch.setattr(cpus, "_replaced", {})
    monkeypatch.setattr(cpus, "count_cpus", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("setting", "variable", "expected"), [(None, "", 5), (None, "3", 3), (None, "3,2", 3), (2, "3", 2), (None, "x", 5)]
)
def test_the_setting_comes_before_the_users_variable_and_that_before_the_cpus(setting, variable, expected, environment):
    environment.setenv("OMP_NUM_THREADS", variable)
    assert use_threads(setting) == torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"]) == expected


def test_a_number_that_an_earlier_run_has_set_is_not_taken_for_the_users(environment):
    assert [use_threads(threads) for threads in (1, None)] == [1, 5]
    environment.setenv("OMP_NUM_THREADS", "3")
    assert [use_threads(threads) for threads in (None, 2, None, None)] == [3, 2, 3, 3]


def test_threads_spin_shortly_unless_the_user_decides():
    for environment in ({}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "10"}):
        expected = environment or {"GOMP_SPINCOUNT": "1000"}
        limit_spinning(environment)
        assert environment == expected
