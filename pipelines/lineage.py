"""Trace a bundle to the commit, commands, settings and data that created it, through the history of dvc.lock.

    python -m pipelines.lineage BUNDLE

The command prints them as YAML. The files of each commit are looked up in the DVC cache and the default remote.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError

ROOT = Path(__file__).parents[1]
LOCKS = ("dvc.lock", "pipelines/dvc.lock", ":(glob)conf/**/dvc.lock")
"""Patterns, for git, of the lock files of all environments."""
LOCK_FILE = re.compile(r"(conf/.*/|pipelines/)?dvc\.lock")
CODE = re.compile(r"(src|pipelines|conf)/.*|.*\.py|requirements\.lock")
"""The dependencies that git has at the commit; all others are data."""
BUNDLES = "06_models/onnx"
"""Part of the path of each output that contains bundles."""
Stages = Mapping[str, Mapping[str, Any]]
"""Stages of all dvc.lock files, by their address in DVC; paths are relative to the repository."""


def trace_bundle(bundle: Path, root: Path = ROOT) -> dict[str, Any]:
    """Return the commit, commands, settings and data that created a bundle.

    Args:
        bundle: The folder of an exported task, at any path.
        root: The git repository of the project.

    Returns:
        `commit`: the first commit whose dvc.lock contains the bundle, with its `date` and `subject`. `stages`: for the
        stage that exported the bundle and for each upstream stage, by its address (`name`, or `file:name` if it is not
        in the root's dvc.yaml), the command, the resolved settings, and the MD5 of the data that it read and wrote.
        Also `task`, and the command to `reproduce` the bundle.

    Raises:
        HyperFormerError: The folder is not a bundle, a file was changed, no commit contains the bundle, or the git
            history, the DVC cache or the remote cannot be read.
    """
    description = manifest.read(bundle)
    manifest.verify(bundle, description.files)
    checksum = hashlib.md5((bundle / manifest.MANIFEST).read_bytes(), usedforsecurity=False).hexdigest()
    exports = missing = 0
    for commit, name, stages, files in _exports(root):
        if checksum in files:
            date, subject = _git(root, "log", "-1", "--format=%ci%n%s", commit).splitlines()
            return {
                "task": description.task,
                "commit": commit,
                "date": date,
                "subject": subject,
                "stages": dict(_upstream_stages(name, stages)),
                "reproduce": _reproduce(commit, name),
            }
        exports, missing = exports + 1, missing + (not files)
    hint = (
        f" {missing} of them are in neither the DVC cache nor the remote: run dvc fetch --all-commits."
        if missing
        else ""
    )
    raise HyperFormerError(
        f"{bundle} matches none of the {exports} exports in the git history of dvc.lock files.{hint} Commit the "
        "dvc.lock of the run that exported it."
    )


def _exports(root: Path) -> Iterator[tuple[str, str, Stages, set[str]]]:
    """Yield (commit, stage address, all stages, MD5s of files) of each distinct folder of bundles, oldest first."""
    seen = set()
    for commit in _git(root, "log", "--reverse", "--format=%h", "--", *LOCKS).split():
        stages: dict[str, Any] = {}
        files = _git(root, "ls-tree", "-rz", "--name-only", commit).split("\0")
        for lock in filter(LOCK_FILE.fullmatch, files):
            prefix = "" if lock == "dvc.lock" else f"{lock.removesuffix('.lock')}.yaml:"
            parsed = _parse_stages(_git(root, "show", f"{commit}:{lock}"))
            stages |= {f"{prefix}{name}": stage for name, stage in parsed.items()}
        for name, stage in stages.items():
            for out in stage.get("outs", []):
                if BUNDLES in out["path"] and out["md5"] not in seen:
                    seen.add(out["md5"])
                    yield commit, name, stages, _files(root, commit, out["path"])


def _parse_stages(lock: str) -> Stages:
    """Return the stages of a dvc.lock; none if it was committed in a damaged state, such as with conflict markers."""
    try:
        stages = parse_yaml(lock, "dvc.lock")["stages"]  # as DVC wrote it: in YAML 1.1, `no` would be false
    except (YAMLFileCorruptedError, TypeError, KeyError):
        return {}
    return stages if isinstance(stages, dict) else {}


def _files(root: Path, commit: str, folder: str) -> set[str]:
    """Return the MD5s of the files of a folder at a commit; an empty set if DVC no longer has their list.

    Raises:
        HyperFormerError: DVC cannot read its cache or remote.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        files = DVCFileSystem(str(root), rev=commit).find(folder, detail=True)
    except DataIndexDirError:
        return set()
    except (DvcException, ImportError) as error:  # the remote is misconfigured, or its type needs another package
        raise HyperFormerError(f"DVC cannot read its cache or remote: {error}") from None
    return {file["md5"] for file in files.values() if file.get("md5")}


def _upstream_stages(name: str, stages: Stages) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the address and description of a stage and of all stages that it depends on, nearest first.

    A parameter is listed once, at the first stage that reads it, unless another stage has a different value.
    """
    makers = {out["path"]: maker for maker, stage in stages.items() for out in stage.get("outs", [])}
    queue, visited, values = [name], set(), {}
    while queue:
        current = queue.pop(0)
        if current in visited:
            continue
        visited.add(current)
        stage = stages[current]
        parameters = {
            file: changed
            for file, params in stage.get("params", {}).items()
            if (changed := {key: value for key, value in params.items() if values.get((file, key)) != value})
        }
        values |= {(file, key): value for file, changed in parameters.items() for key, value in changed.items()}
        data = {dep["path"]: dep["md5"] for dep in stage.get("deps", []) if not CODE.fullmatch(dep["path"])}
        outs = {out["path"]: out["md5"] for out in stage.get("outs", [])}
        yield current, {"command": stage["cmd"], "parameters": parameters, "read": data, "made": outs}
        queue += [makers[path] for path in (*data, *stage.get("params", {})) if path in makers]


def _reproduce(commit: str, address: str) -> str:
    """Return the commands that restore a commit with the files of a stage's dvc.yaml, and check that none is stale."""
    file = address.rpartition(":")[0] or "dvc.yaml"
    return f"git checkout {commit} && dvc repro --pull {file}"


def _git(root: Path, *arguments: str) -> str:
    process = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if process.returncode:
        message = " ".join(process.stderr.split())
        raise HyperFormerError(
            f"cannot read the git history of {root} ({message}). Run this command in a clone of the repository."
        )
    return process.stdout


def main() -> None:
    """Print the lineage of the bundle that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.lineage", description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder of an exported task")
    try:
        lineage = trace_bundle(parser.parse_args().bundle)
    except (HyperFormerError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    print(yaml.safe_dump(lineage, sort_keys=False, allow_unicode=True), end="")


if __name__ == "__main__":
    main()
