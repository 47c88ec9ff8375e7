"""Helpers that run code in a fresh interpreter, in a fork with imported libraries, or with Kedro in this process."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, cast
from unittest import mock

import psutil

ROOT = Path(__file__).parents[1]
SECONDS = 280
"""Seconds that a process has to end."""
LIBRARIES = [
    "accelerate",
    "datasets",
    "dvclive",
    "kedro.framework.session",
    "kedro_datasets.json",
    "onnx",
    "onnxruntime",
    "optimum.onnxruntime",
    "pandas",
    "sklearn.linear_model",
    "torch",
    "transformers.models.bert.modeling_bert",
    "transformers.models.t5.modeling_t5",
]
"""Libraries that the fork server imports once, before it forks."""

Completed = subprocess.CompletedProcess[str]


def run_python(code: str, *arguments: object, cwd: Path | None = None, **environment: str) -> Completed:
    """Run `code` in a fresh interpreter."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


# --- forks

_fork_seconds: list[float] = []


def fork_seconds() -> float:
    """Return the CPU time of the forks that have ended."""
    return sum(_fork_seconds)


def run_fork(code: str, *arguments: object, cwd: Path | None = None, **environment: str) -> Completed:
    """Run `code` in a new process that shares no state with this one, with the libraries imported."""
    with Fork(_execute, code, arguments, cwd=cwd, **environment) as fork:
        return fork.complete()


class Fork:
    """A module-level function that runs in a separate process, forked from one with the libraries imported.

    Leaving the context kills the process and its children. Libraries that read environment variables on import have
    read those of this process: use `run_python` where that matters.
    """

    def __init__(
        self, function: Callable[..., None], *arguments: Any, cwd: Path | None = None, **environment: str
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr", "seconds")]
        for file in self._files:
            file.touch()
        self._killed_after = 0.0
        start = (function, arguments, str(cwd or Path.cwd()), {**os.environ, **environment}, self._files)
        self.process: ForkServerProcess = fork_server().Process(target=_start, args=start)

    def __enter__(self) -> Fork:
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        _fork_seconds.append(float(self._files[2].read_text() or self._killed_after))
        self._folder.cleanup()

    def kill(self) -> None:
        """Kill the process and its children with SIGKILL, if they are still running."""
        with contextlib.suppress(psutil.Error):
            self._killed_after = sum(psutil.Process(self.process.pid).cpu_times()[:2])
        self.process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(cast(int, self.process.pid), signal.SIGKILL)
        self.process.join()

    def wait_for(self, pattern: str) -> None:
        """Wait until standard output matches a pattern."""
        deadline = time.monotonic() + SECONDS
        while not re.search(pattern, self._files[0].read_text()):
            assert self.process.is_alive(), f"{pattern!r} is not in the output: {self.complete()}"
            assert time.monotonic() < deadline, f"{pattern!r} is not in the output after {SECONDS} s"
            time.sleep(0.01)

    def complete(self) -> Completed:
        """Wait for the end of the process and return its result."""
        self.process.join(SECONDS)
        assert self.process.exitcode is not None, f"the process has not ended after {SECONDS} s"
        return Completed("fork", self.process.exitcode, *(file.read_text() for file in self._files[:2]))


def fork_server() -> ForkServerContext:
    """Return the context whose processes are forked from one that has the libraries imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


def _start(
    function: Callable[..., None], arguments: tuple[Any, ...], cwd: str, environment: dict[str, str], files: list[Path]
) -> None:
    os.setsid()
    gc.freeze()
    for number, file in enumerate(files[:2], 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    try:
        function(*arguments)
    finally:
        files[2].write_text(str(sum(os.times()[:4])))


def _execute(code: str, arguments: tuple[object, ...]) -> None:
    sys.argv = ["-c", *map(str, arguments)]
    sys.path.insert(0, "")
    logging.root.handlers.clear()  # Kedro, imported with the libraries, logs to standard output
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})


# --- Kedro


def copy_project(folder: Path) -> Path:
    """Copy what `kedro run` needs into a folder."""
    for name in ("conf", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("local", "__pycache__"))
    for file in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / file, folder / file)
    (folder / "conf" / "local").mkdir()
    return folder


def kedro(tree: Path, *arguments: str, env: str = "test") -> Completed:
    """Run `kedro run` in a copy of the project, in this process, and restore the state of the process."""
    output, errors = io.StringIO(), io.StringIO()
    with _restored(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = run_kedro(str(tree), ["run", *(["--env", env] if env else []), *arguments])
    return Completed(["kedro", "run", *arguments], code, output.getvalue(), errors.getvalue())


def kedro_process(tree: Path, *arguments: str, env: str = "test", **environment: str) -> Completed:
    """Run `kedro run` in a copy of the project, in a fresh interpreter."""
    command = [sys.executable, "-m", "kedro", "run", "--env", env, *arguments]
    return subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def kedro_fork(tree: Path, *arguments: str, traces_folder: Path | None = None) -> Fork:
    """Start `kedro run` in a fork; `traces_folder` is a folder of graph traces to reuse."""
    return Fork(_exit_with_kedro, str(tree), ["run", "--env", "test", *arguments], traces_folder, cwd=tree)


def _exit_with_kedro(tree: str, arguments: list[str], traces_folder: Path | None) -> None:
    import traces

    with traces.reuse_traces(traces_folder) if traces_folder else contextlib.nullcontext():
        sys.exit(run_kedro(tree, arguments))


def run_kedro(tree: str, arguments: list[str]) -> int:
    """Run Kedro's command line as its console script does.

    Returns:
        The exit status; 1, with a traceback on standard error, for an exception.
    """
    import yaml
    from kedro.framework.cli.cli import KedroCLI
    from kedro.framework.project import LOGGING

    os.chdir(tree)
    sys.argv = ["kedro", *arguments]
    LOGGING.configure(yaml.safe_load((Path(tree) / "conf" / "logging.yml").read_text()))
    try:
        KedroCLI(project_path=Path(tree)).main(args=arguments, prog_name="kedro")
    except SystemExit as error:
        return int(error.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restore environment variables, folder, paths, arguments, loggers and random states at the end."""
    import random

    import numpy as np
    import torch

    cwd, states = Path.cwd(), (random.getstate(), np.random.get_state(), torch.get_rng_state())
    loggers = [logging.root, *map(logging.getLogger, ("kedro", "kedro.runner", "hyperformer", "pipelines"))]
    saved_loggers = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "path", sys.path[:]),
        mock.patch.object(sys, "argv", sys.argv),
        mock.patch.object(logging, "shutdown"),  # Kedro's configuration closes all handlers, absl's its stream too
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # as in the shell, warnings are not errors
        try:
            yield
        finally:
            os.chdir(cwd)
            for logger, level, handlers in saved_loggers:
                logger.setLevel(level)
                logger.handlers[:] = handlers
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


# --- opened files


class Audit:
    """Record of the files that this process opens and the classes that it unpickles during `watch`."""

    def __init__(self) -> None:
        self.opened: set[tuple[Path, bool]] = set()
        """Path of each file, and whether it was opened for writing."""
        self.unpickled: set[str] = set()
        self._watching = False
        sys.addaudithook(self._hook)  # hooks cannot be removed

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Record opened files and unpickled classes until the end of the context."""
        self._watching = True
        try:
            yield
        finally:
            self._watching = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            mode, flags = str(arguments[1]), arguments[2] or 0
            writes = any(letter in mode for letter in "wax+") or bool(flags & (os.O_WRONLY | os.O_RDWR))
            self.opened.add((Path(os.path.abspath(os.fsdecode(arguments[0]))), writes))
        elif event == "pickle.find_class":
            self.unpickled.add(".".join(map(str, arguments)))
