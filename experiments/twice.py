"""The first proof of reproducibility: two clones, `make demo` in both, equal bytes of every output.

    python experiments/twice.py [FOLDER]     # about 25 minutes; FOLDER (a temporary one) keeps the clones

Each clone has an environment of its own. What is hashed is the files themselves, and not what dvc.lock says of them.
"""

from __future__ import annotations

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


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    found = []
    for name in ("one", "another/deeper"):
        tree = folder / name
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
        began = time.monotonic()
        subprocess.run(["make", "demo"], cwd=tree, check=True)
        print(f"{tree}: make demo took {time.monotonic() - began:.0f} s, with its environment")
        found.append(outputs(tree))
    locked = is_lock_unchanged(folder / "one")
    first, second = found
    for path in sorted(first.keys() | second.keys()):
        same = first.get(path) == second.get(path)
        print(f"{'equal' if same else 'OTHER'}  {first.get(path, '-')[:16]}  {path}")
    print("dvc.lock is unchanged" if locked else "dvc.lock CHANGED: other hashes than those that were committed")
    return 0 if first == second and locked else 1


if __name__ == "__main__":
    sys.exit(main())
