"""The first proof of reproducibility: two clones, `make demo` in both, equal bytes of every output.

    python experiments/twice.py [FOLDER] [--kills N]     # FOLDER (a temporary one) keeps the clones

Each clone has an environment of its own. What is hashed is the files themselves, and not what dvc.lock says of them.
With --kills the second clone's run is killed at that many random moments, and begun again each time; a run that ends
before its moment has come is compared, and the next begins with nothing made. It takes 25 minutes, with ten kills an
hour.
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

from hyperformer.manifest import folder_sha256

ROOT = Path(__file__).parents[1]


def outputs(tree: Path) -> dict[str, str]:
    """Every DVC output of a tree and its sha256."""
    stages = yaml.safe_load((tree / "dvc.lock").read_text())["stages"]
    paths = sorted(out["path"] for stage in stages.values() for out in stage["outs"])
    return {path: folder_sha256(tree / path) for path in paths}


def is_lock_unchanged(tree: Path) -> bool:
    """Whether running left the committed dvc.lock as it was."""
    return not subprocess.run(["git", "diff", "--quiet", "--", "dvc.lock"], cwd=tree, check=False).returncode


def clone(tree: Path) -> None:
    """A clone with an environment of its own."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    subprocess.run(["make", "env"], cwd=tree, check=True)


def run(tree: Path) -> float:
    """Runs `make demo` to its end; the seconds it took."""
    began = time.monotonic()
    subprocess.run(["make", "demo"], cwd=tree, check=True)
    return time.monotonic() - began


def is_group_alive(leader: int) -> bool:
    """Whether a process of a group is still there, be it dead and not yet waited for."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def anew(tree: Path) -> None:
    """Leaves of a clone what git has, and its environment."""
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=tree, check=True)
    subprocess.run(["git", "clean", "-dffxq", "--exclude", ".venv"], cwd=tree, check=True)


def run_until(tree: Path, after: float) -> bool:
    """Begins `make demo`, and kills it and all that it started after so many seconds.

    Returns:
        Whether it had ended before.
    """
    began = time.monotonic()
    demo = subprocess.Popen(
        ["make", "demo"], cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    with demo:
        try:
            said, _ = demo.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            os.killpg(demo.pid, signal.SIGKILL)
            said, _ = demo.communicate()
    while is_group_alive(demo.pid):  # DVC keeps its lock for a process that is not yet gone
        time.sleep(0.1)
    if demo.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{tree}: make demo failed:\n{said.decode(errors='replace')}")
    told = re.findall(r"Running stage '\w+'|resuming from step \d+|step \d+ of \d+", said.decode(errors="replace"))
    way = [words for words, following in zip(told, [*told[1:], ""], strict=True) if words[:5] != following[:5]]
    how = "killed" if demo.returncode else "ended"
    print(f"{tree}: {how} after {time.monotonic() - began:.0f} s: {', '.join(way)}", flush=True)
    return not demo.returncode


def kill(tree: Path, times: int, seconds: float, expected: dict[str, str]) -> bool:
    """Kills `make demo` so many times, each within half of a whole run's time, and begins it again each time.

    A run that ends before its moment has come is compared, and the next one begins with nothing made.

    Returns:
        Whether each run that ended has the expected outputs.
    """
    moments = random.Random(0)
    kills, others = 0, 0
    while kills < times:
        if not run_until(tree, moments.uniform(0.0, seconds / 2)):
            kills += 1
            continue
        same = outputs(tree) == expected
        others += not same
        print(f"{tree}: {'equal' if same else 'OTHER'} outputs after {kills} kills", flush=True)
        anew(tree)
    return not others


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where the clones are made and kept")
    parser.add_argument("--kills", type=int, default=0, help="how often the second clone's run is killed")
    given = parser.parse_args()
    folder = Path(given.folder or tempfile.mkdtemp())
    trees = [folder / "one", folder / "another" / "deeper"]
    for tree in trees:
        clone(tree)
    seconds = run(trees[0])
    first = outputs(trees[0])
    same = kill(trees[1], given.kills, seconds, first)
    print(f"make demo took {seconds:.0f} s, and in the other clone {run(trees[1]):.0f} s")
    second = outputs(trees[1])
    locked = is_lock_unchanged(trees[0])
    for path in sorted(first.keys() | second.keys()):
        mark = "equal" if first.get(path) == second.get(path) else "OTHER"
        print(f"{mark}  {first.get(path, '-')[:16]}  {path}")
    print("dvc.lock is unchanged" if locked else "dvc.lock CHANGED: other hashes than those that were committed")
    return 0 if same and first == second and locked else 1


if __name__ == "__main__":
    sys.exit(main())
