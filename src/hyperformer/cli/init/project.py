"""The checkout in which the command `init` writes: its environments, copied files and DVC stages."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyperformer.cli.init.sources import TaskFiles, remove_suffixes
from hyperformer.core.errors import HyperFormerError, suggest_name

CONF = Path("conf")
DATA = Path("data")
BACKBONE = "data/minilm/06_models/backbone"
"""Default backbone, which `make minilm` downloads."""
CHECKOUT = (CONF / "base" / "parameters.yml", Path("pipelines"), Path("pyproject.toml"))
"""Paths that a checkout of this project has."""


def check_project(env: str, without_dvc: bool) -> str:
    """Check that this is a checkout in which the environment can be written, and return the environment's name.

    Raises:
        HyperFormerError: it is not.
    """
    if not all(path.exists() for path in CHECKOUT):
        raise HyperFormerError(
            f"{Path.cwd()} is not a checkout of this project; expected the folder with conf/base and pipelines. Clone "
            "the repository, and run this in its root."
        )
    if not re.fullmatch(r"[A-Za-z][\w-]*", env):
        raise HyperFormerError(
            f"got the environment name {env!r}; expected a letter, then letters, digits, - and _. Choose another --env."
        )
    for path in (CONF / env, DATA / env):
        if path.exists():
            raise HyperFormerError(
                f"{path} exists already, and nothing is overwritten; expected a new environment. Choose another --env, "
                "or remove the folder."
            )
    if without_dvc:
        return env
    for name, folder in (("git", ".git"), ("dvc", ".dvc")):
        if shutil.which(name) is None or not Path(folder).exists():
            raise HyperFormerError(
                f"{name} is not installed, or {Path.cwd()} is no repository of it; expected both, to version the rows "
                "and the run. Install it, or use --no-dvc."
            )
    return env


def check_backbone(path: str) -> None:
    """Check that a backbone is a folder with a configuration, or can be the name of a model on the Hub.

    Raises:
        HyperFormerError: it is neither.
    """
    folder = Path(path)
    if path == BACKBONE or (folder / "config.json").is_file():
        return
    is_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path) and not Path(folder.parts[0]).exists()
    if folder.exists() or not is_name:
        raise HyperFormerError(
            f"the backbone {path!r} has no config.json; expected the folder of a pretrained model, or its name on the "
            "Hub. Fix --backbone."
        )


def locate_checkpoint(env: str) -> Path:
    """Return the folder of the model that an environment trains."""
    return (Path("data") if env == "base" else DATA / env) / "06_models" / "checkpoint"


def read_backbone(env: str) -> str:
    """Return the backbone of the model that an environment has trained.

    Raises:
        HyperFormerError: the environment does not exist, or has no trained model of all tasks.
    """
    names = [path.name for path in CONF.iterdir() if path.is_dir()]
    if env not in names:
        raise HyperFormerError(f"unknown environment {env!r}; {suggest_name(env, names)}")
    file = locate_checkpoint(env) / "configuration.json"
    if not file.is_file():
        raise HyperFormerError(
            f"the environment {env!r} has no trained model in {file.parent}; expected one to adapt. Run kedro run "
            f"--env {env}, or dvc pull."
        )
    configuration = json.loads(file.read_text(encoding="utf-8"))
    if len(configuration["groups"]) > 1:
        raise HyperFormerError(
            f"the method of the environment {env!r} trains a model for each task; expected one model for all tasks. "
            "Train with another method."
        )
    return str(configuration["backbone"]["path"])


@contextmanager
def remove_on_error(env: str) -> Iterator[list[Path]]:
    """Yield a list for paths that the block creates, and remove them if the block fails."""
    created: list[Path] = []
    try:
        yield created
    except BaseException:
        for path in reversed(created):
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(f"{path.name}.dvc").unlink(missing_ok=True)
        if (DATA / env).is_dir():
            shutil.rmtree(DATA / env, ignore_errors=True)
        raise


def place_files(task: TaskFiles, env: str, created: list[Path]) -> str:
    """Return the folder of a task's files; copy files that are not in a folder of the repository."""
    if task.is_source:
        return os.path.relpath(task.argument)
    folder = DATA / env / "01_raw" / task.task
    created.append(folder)
    folder.mkdir(parents=True)
    for split, file in task.files.items():
        shutil.copyfile(file, folder / f"{split}{file.name.removeprefix(remove_suffixes(file))}")
    print(f"copied {task.argument} to {folder}")
    return str(folder)


def track_copies(copies: Sequence[Path]) -> None:
    """Track copied files with DVC."""
    for path in copies:
        _run("dvc", "add", "-q", str(path))
    if copies:
        print(f"tracked {', '.join(map(str, copies))} with DVC: commit the .dvc files beside them")


def write_stages(env: str) -> None:
    """Write the DVC stages of the environment."""
    _run(sys.executable, "-m", "kedro", "dvc", "--env", env)
    print(f"wrote the DVC stages of the environment, conf/{env}/dvc.yaml")


def _run(*command: str) -> None:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        lines = [line for line in (process.stderr or process.stdout).splitlines() if line.strip()]
        raise HyperFormerError(f"{shlex.join(command)} failed: {lines[-1] if lines else 'no message'}")
