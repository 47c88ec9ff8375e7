"""The first proof of reproducibility: two clones, `make demo` in both, equal bytes of every output.

    python experiments/twice.py [FOLDER] [--kills N]     # about 25 minutes; FOLDER (a temporary one) keeps the clones

Each clone has an environment of its own. What is hashed is the files themselves, and not what dvc.lock says of them.
With --kills the second clone's run is killed at that many random moments, and begun again each time.
"""

from __future__ import annotations

import argparse
import os
import random
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


def kill(tree: Path, times: int, seconds: float) -> None:
    """Begins `make demo` so many times, and kills it and all that it started, within `seconds` of work together."""
    moments = random.Random(0)
    for number in range(1, times + 1):
        after = moments.uniform(0.0, 2 * seconds / times)
        with subprocess.Popen(["make", "demo"], cwd=tree, stdout=subprocess.PIPE, start_new_session=True) as begun:
            try:
                said, _ = begun.communicate(timeout=after)
            except subprocess.TimeoutExpired:
                os.killpg(begun.pid, signal.SIGKILL)
                said, _ = begun.communicate()
        while is_group_alive(begun.pid):  # DVC keeps its lock for a process that is not yet gone
            time.sleep(0.1)
        stages = [line for line in said.decode(errors="replace").splitlines() if line.startswith("Running stage")]
        where = stages[-1] if stages else "no stage"
        print(f"{tree}: kill {number} after {after:.0f} s: {where}, exit status {begun.returncode}", flush=True)


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
    kill(trees[1], given.kills, seconds)
    print(f"make demo took {seconds:.0f} s, and in the other clone {run(trees[1]):.0f} s")
    first, second = map(outputs, trees)
    locked = is_lock_unchanged(trees[0])
    for path in sorted(first.keys() | second.keys()):
        same = first.get(path) == second.get(path)
        print(f"{'equal' if same else 'OTHER'}  {first.get(path, '-')[:16]}  {path}")
    print("dvc.lock is unchanged" if locked else "dvc.lock CHANGED: other hashes than those that were committed")
    return 0 if first == second and locked else 1


if __name__ == "__main__":
    sys.exit(main())
