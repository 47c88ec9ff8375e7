"""The number of CPU threads: the CPUs that this process may use, and how PyTorch's threads wait for each other.

This module does not import PyTorch, whose thread pool reads some environment variables only once, when it is imported.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

OMP_THREADS = "OMP_NUM_THREADS"
"""Environment variable of the number of threads of OpenMP, and so of PyTorch."""
SPIN_COUNT = "GOMP_SPINCOUNT"
"""Environment variable of the number of loops that a thread of GNU's OpenMP waits before it sleeps."""
WAIT_POLICY = "OMP_WAIT_POLICY"
"""Environment variable of whether OpenMP's threads spin (`active`) or sleep (`passive`) while they wait."""
SPINS = 1000
"""Loops before a thread sleeps, some 20 µs: more cost time beside a busy process, fewer on idle cores."""
_replaced: dict[str, str] = {}
"""Value of `OMP_THREADS` that `use_threads` has set last → the user's value, which it has replaced."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep after a short wait for each other, unless the environment sets how they wait.

    By default, a thread that waits for the others spins for milliseconds. If other processes keep a CPU busy, the
    spinning threads use up the time slices that the thread they wait for needs. This has no effect after PyTorch has
    been imported.
    """
    if SPIN_COUNT not in environment and WAIT_POLICY not in environment:
        environment[SPIN_COUNT] = str(SPINS)


def use_threads(threads: int | None) -> int:
    """Set the number of threads of PyTorch in this process and of OpenMP in its children, and return it.

    Args:
        threads: the number; None: the first number in `OMP_NUM_THREADS` or, if it is not set, `count_cpus`.
    """
    current = os.environ.get(OMP_THREADS, "")
    user = _replaced.get(current, current)
    first = user.partition(",")[0].strip()
    number = threads or (int(first) if first.isdecimal() else 0) or count_cpus()
    _replaced.clear()
    _replaced[str(number)] = user
    os.environ[OMP_THREADS] = str(number)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)
    return number


def count_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may use by its affinity and the quotas of its cgroups; at least 1.

    Args:
        root: the folder that has `proc` and `sys`.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quota of each cgroup of this process that has one, in CPUs."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            for folder in (mounts, mounts / "unified"):
                yield from (quota for file in _files(folder, path, "cpu.max") for quota in _quota(*_read(file).split()))
        elif "cpu" in controllers.split(","):
            for file in _files(mounts / controllers, path, "cpu.cfs_quota_us"):
                yield from _quota(_read(file), _read(file.with_name("cpu.cfs_period_us")))


def _files(mount: Path, path: str, name: str) -> Iterator[Path]:
    """Yield the files of a name in the folder of a cgroup and of its ancestors.

    In a container, the cgroup of the container may be the root of the mount; its path is then missing below it.
    """
    folder = mount / path.strip("/")
    yield from (parent / name for parent in (folder, *folder.parents) if parent.is_relative_to(mount))


def _quota(quota: str = "", period: str = "") -> Iterator[float]:
    """Yield the quotient of quota and period; nothing if there is no quota (`max`, -1, or no file)."""
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
