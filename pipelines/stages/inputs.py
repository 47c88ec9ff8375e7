"""The inputs of an environment that no stage makes, rows and backbone; every clone must be able to restore them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.settings import Settings

COMMIT = re.compile(r"[0-9a-f]{40}")


def reads_language_rows(settings: Settings) -> bool:
    """Return whether a task reads rows of the embedded language."""
    from hyperformer.data.sources import is_embedded
    from hyperformer.tasks import make_tasks

    return any(is_embedded(task, settings.data) for task in make_tasks(settings.tasks).values())


def list_row_files(settings: Settings, data: str) -> list[str]:
    """Return the local files of the tasks' rows, relative to the repository.

    Args:
        settings: Settings of the environment.
        data: Folder of the environment's data, for the advice of errors.

    Raises:
        HyperFormerError: A file would be missing in a clone, or a dataset on the Hub is not pinned to a commit.
    """
    from hyperformer.data.sources import is_embedded, list_files
    from hyperformer.tasks import make_tasks

    files: list[str] = []
    for name, task in make_tasks(settings.tasks).items():
        source = task.settings.source
        if is_embedded(task, settings.data):
            continue
        setting, path = (
            (f"tasks.{name}.source.path", source.path) if source.path else ("data.source", settings.data.source)
        )
        local = list_files(name, task, settings.data)
        if local:
            folder = f"{data}/01_raw/{source.name or name}"
            files += _check_local(setting, path, local, folder)
        else:
            _check_pin(f"tasks.{name}.source.revision", source.revision, path)
    check_relative("data.source", settings.data.source)  # DVC records it even if no task uses it
    return sorted(set(files))


def find_backbone(settings: Settings, data: str) -> str | None:
    """Return the folder of the backbone, relative to the repository; None if it is on the Hub.

    Args:
        settings: Settings of the environment.
        data: Folder of the environment's data, for the advice of errors.

    Raises:
        HyperFormerError: The folder would be missing in a clone, or a model on the Hub is not pinned to a commit.
    """
    path = settings.backbone.path
    from hyperformer.data.sources import HUB_NAME

    folder = Path(path)
    if not folder.is_dir() and HUB_NAME.fullmatch(path) and not Path(folder.parts[0]).is_dir():
        _check_pin("backbone.revision", settings.backbone.revision, path)
        return None
    if not folder.is_dir():
        raise HyperFormerError(
            f"the setting 'backbone.path' is {path!r}, which does not exist; expected a folder, or a model on the Hub. "
            "Create the folder, or run dvc pull if DVC tracks it."
        )
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    _check_local("backbone.path", path, files, f"{data}/06_models/backbone")
    return os.path.normpath(path)


def _check_pin(setting: str, revision: str | None, name: str) -> None:
    if not COMMIT.fullmatch(revision or ""):
        raise HyperFormerError(
            f"the setting {setting!r} is {revision!r}; expected a commit of {name} on the Hub, 40 hexadecimal digits, "
            "because a branch or tag can change. Set it to the commit to use."
        )


def _check_local(setting: str, path: str, files: Iterable[Path], copy: str) -> list[str]:
    """Return local files relative to the repository, after a check that every clone can restore them.

    Args:
        setting: Name of the setting of the path.
        path: The path as it is written in the settings.
        files: The files that are read.
        copy: Path for a copy of the files that DVC tracks.
    """
    ways = f"copy it to {copy} and run dvc add {copy}"
    paths = [os.path.relpath(os.path.expanduser(file)) for file in files]
    outside = [path for path in paths if not Path(path).resolve().is_relative_to(Path.cwd().resolve())]
    ignored = _list_ignored([path for path in paths if path not in outside])
    outputs = _list_outputs() if outside or ignored else []  # an output may be a link to a cache that is elsewhere
    for file in outside:
        if not _is_inside(file, outputs):
            raise HyperFormerError(
                f"the setting {setting!r} is {path!r}, which is outside of this repository; expected a path in it, so "
                f"that a clone can read it. Copy the folder into the repository and commit it with git, or {ways}; "
                "then change the setting."
            )
    check_relative(setting, path)
    for file in ignored:
        if not _is_inside(file, outputs):
            raise HyperFormerError(
                f"{file} (setting {setting!r}) is ignored by git and not tracked by DVC; expected a file that a clone "
                f"has. Run dvc add {os.path.normpath(path)}, or move the folder to a path that git does not ignore and "
                "commit it."
            )
    return paths


def check_relative(setting: str, path: str | None) -> None:
    """Refuse the path of a setting that is not valid in every clone: one from the root, the home or a parent folder."""
    if path and (path.startswith(("/", "~")) or ".." in Path(path).parts):
        raise HyperFormerError(
            f"the setting {setting!r} is {path!r}; expected a path relative to the repository, which is valid in every "
            f"clone. Change it to {os.path.relpath(os.path.expanduser(path))!r}."
        )


def _is_inside(path: str, folders: Iterable[Path]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _list_ignored(paths: list[str]) -> list[str]:
    """Return the paths that git ignores; none outside of a git repository."""
    command = ["git", "check-ignore", "-z", "--stdin"]
    try:
        process = subprocess.run(command, input="\0".join(paths), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HyperFormerError("cannot run git; expected git, to see which files a clone has. Install it.") from None
    return [path for path in process.stdout.split("\0") if path]


def _list_outputs() -> list[Path]:
    """Return the outputs of all stages and .dvc files, relative to the repository; none if it does not use DVC."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return [Path(os.path.relpath(out.fs_path)) for out in repo.index.outs if out.protocol == "local"]
    except NotDvcRepoError:
        return []
    except DvcException as error:
        raise HyperFormerError(
            f"DVC cannot read the stages of this repository ({error}); expected valid dvc.yaml and .dvc files. Fix or "
            "remove the file."
        ) from None
