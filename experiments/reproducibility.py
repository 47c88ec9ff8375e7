"""Check that `make demo` produces the same bytes in two clones of this repository.

    python experiments/reproducibility.py [FOLDER] [--kills N]     # the default of FOLDER is a temporary folder

The clones are created in FOLDER, each with its own environment. The check compares the sha256 of every output, which
it computes from the files instead of reading it from dvc.lock. The first clone's run must not change dvc.lock either.

With --kills the second clone's run is killed at N random moments and restarted each time; the last run is not killed.
If a run ends before it is killed, its outputs are compared, and the next run starts from a clean clone. The check takes
25 minutes without kills, and an hour with ten kills.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from hyperformer.core.files import folder_sha256

ROOT = Path(__file__).parents[1]
PROGRESS = re.compile(r"Running stage '\w+'|resuming from step \d+|step \d+ of \d+")
"""Phrases in the logs of DVC and of training that show how far a run has progressed."""


def outputs(tree: Path) -> dict[str, str]:
    """Return the sha256 of every DVC output of a tree, by path."""
    stages = yaml.safe_load((tree / "dvc.lock").read_text())["stages"]
    paths = sorted(out["path"] for stage in stages.values() for out in stage["outs"])
    return {path: folder_sha256(tree / path) for path in paths}


def is_lock_unchanged(tree: Path) -> bool:
    """Return whether the dvc.lock of a tree is still the committed one."""
    return not subprocess.run(["git", "diff", "--quiet", "--", "dvc.lock"], cwd=tree, check=False).returncode


def clone(tree: Path) -> None:
    """Clone this repository and create the clone's environment."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    subprocess.run(["make", "env"], cwd=tree, check=True)


def run(tree: Path) -> float:
    """Run `make demo` to its end and return its duration in seconds."""
    start = time.monotonic()
    subprocess.run(["make", "demo"], cwd=tree, check=True)
    return time.monotonic() - start


def is_group_alive(leader: int) -> bool:
    """Return whether a process of a group still exists, zombies included."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def reset(tree: Path) -> None:
    """Restore a clone's committed files and remove all other files except the environment."""
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=tree, check=True)
    subprocess.run(["git", "clean", "-dffxq", "--exclude", ".venv"], cwd=tree, check=True)


def run_until(tree: Path, timeout: float) -> bool:
    """Run `make demo`, and kill it with all its processes if it does not end before a timeout.

    Args:
        tree: The clone.
        timeout: The timeout in seconds.

    Returns:
        Whether the run ended before the timeout.

    Raises:
        SystemExit: `make demo` failed.
    """
    start = time.monotonic()
    demo = subprocess.Popen(
        ["make", "demo"], cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    with demo:
        try:
            output, _ = demo.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(demo.pid, signal.SIGKILL)
            output, _ = demo.communicate()
    while is_group_alive(demo.pid):  # DVC keeps its lock for a process that still exists
        time.sleep(0.1)
    log = output.decode(errors="replace")
    if demo.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{tree}: make demo failed:\n{log}")
    events = PROGRESS.findall(log)
    # of consecutive events of one kind, only the last
    shown = [event for event, following in zip(events, [*events[1:], ""], strict=True) if event[:5] != following[:5]]
    outcome = "killed" if demo.returncode else "ended"
    print(f"{tree}: {outcome} after {time.monotonic() - start:.0f} s: {', '.join(shown)}", flush=True)
    return not demo.returncode


def run_with_kills(tree: Path, kills: int, seconds: float, expected: dict[str, str]) -> bool:
    """Run `make demo` until it was killed `kills` times, each time after at most half the time of a whole run.

    If a run ends before it is killed, its outputs are compared, and the next run starts from a clean clone.

    Args:
        tree: The clone.
        kills: The number of kills.
        seconds: The time of a whole run, in seconds.
        expected: The sha256 of every output, by path.

    Returns:
        Whether every run that ended has the expected outputs.
    """
    moments = random.Random(0)
    count, others = 0, 0
    while count < kills:
        if not run_until(tree, moments.uniform(0.0, seconds / 2)):
            count += 1
            continue
        is_equal = outputs(tree) == expected
        others += not is_equal
        print(f"{tree}: {'equal' if is_equal else 'OTHER'} outputs after {count} kills", flush=True)
        reset(tree)
    return not others


def main() -> int:
    """Run `make demo` in two clones, print the comparison of their outputs and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="folder of the clones")
    parser.add_argument("--kills", type=int, default=0, help="number of times to kill the second clone's run")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp())
    trees = [folder / "one", folder / "another" / "deeper"]
    for tree in trees:
        clone(tree)
    seconds = run(trees[0])
    first = outputs(trees[0])
    is_equal = run_with_kills(trees[1], options.kills, seconds, first)
    print(f"make demo took {seconds:.0f} s, and in the other clone {run(trees[1]):.0f} s")
    second = outputs(trees[1])
    is_unchanged = is_lock_unchanged(trees[0])
    for path in sorted(first.keys() | second.keys()):
        mark = "equal" if first.get(path) == second.get(path) else "OTHER"
        print(f"{mark}  {first.get(path, '-')[:16]}  {path}")
    print("dvc.lock is unchanged" if is_unchanged else "dvc.lock CHANGED: its hashes differ from the committed ones")
    return 0 if is_equal and first == second and is_unchanged else 1


if __name__ == "__main__":
    sys.exit(main())
