"""From a bundle to what it was made from: commit, commands, settings and data, found through the history of dvc.lock.

    python -m pipelines.lineage BUNDLE

says it as YAML. The commit's list of files is looked for in DVC's cache and its default remote.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hyperformer import manifest
from hyperformer.types import HyperFormerError

ROOT = Path(__file__).parents[1]
LOCKS = ("dvc.lock", "pipelines/dvc.lock")
BUNDLES = "06_models/onnx"
"""How the paths of folders of bundles go on, from their layer."""
Stages = Mapping[str, Mapping[str, Any]]


def lineage(bundle: Path, root: Path = ROOT) -> dict[str, Any]:
    """What a bundle was made from.

    Args:
        bundle: an exported task's folder, wherever it lies.
        root: the project's git repository.
    Returns:
        The first commit whose dvc.lock holds the bundle's bytes; and of the stage that made it and all before it, by
        name, the command, the parameters, and the MD5 of what it read and made of data.

    Raises:
        HyperFormerError: it is no bundle, a file of it was changed, or no commit holds it.
    """
    described = manifest.read(bundle)
    manifest.verify(bundle, described.files)
    wanted = hashlib.md5((bundle / manifest.FILE).read_bytes(), usedforsecurity=False).hexdigest()
    tried = unread = 0
    for commit, name, stages, files in _exports(root):
        if wanted in files:
            date, subject = _git(root, "log", "-1", "--format=%ci%n%s", commit).splitlines()
            return {
                "task": described.task,
                "commit": commit,
                "date": date,
                "subject": subject,
                "stages": dict(_before(name, stages)),
                "again": f"git checkout {commit} && dvc pull && dvc repro",
            }
        tried, unread = tried + 1, unread + (not files)
    gone = f"; DVC's cache and remote lack {unread} of them: dvc fetch --all-commits" if unread else ""
    raise HyperFormerError(
        f"{bundle} is in none of the {tried} exports that the history of {' and '.join(LOCKS)} knows{gone}; was it "
        "made by a run whose dvc.lock is not committed?"
    )


def _exports(root: Path) -> Iterator[tuple[str, str, Stages, set[str]]]:
    """(commit, stage, all stages, MD5s of the files) of every folder of bundles that was exported, the oldest first."""
    seen = set()
    for commit in _git(root, "log", "--reverse", "--format=%h", "--", *LOCKS).split():
        stages: dict[str, Any] = {}
        for lock in _git(root, "ls-tree", "--name-only", commit, *LOCKS).split():
            stages |= yaml.safe_load(_git(root, "show", f"{commit}:{lock}"))["stages"]
        for name, stage in stages.items():
            for out in stage.get("outs", []):
                if BUNDLES in out["path"] and out["md5"] not in seen:
                    seen.add(out["md5"])
                    yield commit, name, stages, _files(root, commit, out["path"])


def _files(root: Path, commit: str, folder: str) -> set[str]:
    """The MD5s of a folder's files at a commit; none where DVC has them no more."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        files = DVCFileSystem(str(root), rev=commit).find(folder, detail=True)
    except DataIndexDirError:
        return set()
    except (DvcException, ImportError) as error:  # a kind of remote that needs a package, or is not set well
        raise HyperFormerError(f"DVC cannot look into its cache and remote: {error}") from None
    return {file["md5"] for file in files.values() if file.get("md5")}


def _before(name: str, stages: Stages) -> Iterator[tuple[str, dict[str, Any]]]:
    """A stage and those that made what it read, itself first; what they read of code is the commit's.

    A parameter that several read is told of the first one alone, unless its value is another.
    """
    makers = {out["path"]: maker for maker, stage in stages.items() for out in stage.get("outs", [])}
    ahead, told, values = [name], set(), {}
    while ahead:
        here = ahead.pop(0)
        if here in told:
            continue
        told.add(here)
        stage = stages[here]
        new = {
            file: own
            for file, given in stage.get("params", {}).items()
            if (own := {key: value for key, value in given.items() if values.get((file, key)) != value})
        }
        values |= {(file, key): value for file, own in new.items() for key, value in own.items()}
        data = {dep["path"]: dep["md5"] for dep in stage.get("deps", []) if dep["path"].startswith("data/")}
        made = {out["path"]: out["md5"] for out in stage.get("outs", [])}
        yield here, {"command": stage["cmd"], "parameters": new, "read": data, "made": made}
        ahead += [makers[path] for path in data if path in makers]


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise HyperFormerError(f"git cannot tell the history of {root} ({said}); run it in a clone")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.lineage", description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, help="an exported task's folder")
    try:
        found = lineage(parser.parse_args().bundle)
    except HyperFormerError as error:
        raise SystemExit(f"Error: {error}") from None
    print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), end="")


if __name__ == "__main__":
    main()
