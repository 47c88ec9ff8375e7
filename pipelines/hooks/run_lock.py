"""A lock that allows one run at a time in a data folder."""

from __future__ import annotations

import fcntl
import os
import platform
import sys
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kedro.framework.hooks import hook_impl

from hyperformer.core.errors import HyperFormerError
from pipelines.hooks.error_messages import short_message

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class RunLock:
    """Hooks that lock the data folder for one run at a time; a refused run reports which run holds the lock.

    Runs with several machines share the lock, because the machines of one training use one folder.
    The lock ends with its process. A refused run deletes nothing: DVC keeps the outputs of a stage until its run
    has replaced them (`persist` in dvc.yaml).
    """

    def __init__(self) -> None:
        self._lock_file: BinaryIO | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context for later hooks."""
        self._context = context

    @hook_impl(wrapper=True, tryfirst=True)  # around the checks, to release the lock if they fail
    def before_pipeline_run(self) -> Generator[None, Any, Any]:
        """Lock the data folder, and release it if another hook refuses the run."""
        config = self._context.config_loader
        folder = Path(self._context.project_path) / config["globals"]["data"]
        machines = config["parameters"].get("training", {}).get("machines", 1)
        with short_message():
            folder.mkdir(parents=True, exist_ok=True)
            # The machines of one training share a folder.
            self._lock_file = _lock(folder, fcntl.LOCK_SH if machines > 1 else fcntl.LOCK_EX)
        try:
            return (yield)
        except Exception:
            self._release()
            raise

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Release the lock."""
        self._release()

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        """Release the lock."""
        self._release()

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()


def _lock(folder: Path, kind: int) -> BinaryIO:
    """Lock a data folder, and write a description of this run to the lock file.

    Args:
        folder: The data folder.
        kind: `fcntl.LOCK_EX` for a single run, or `fcntl.LOCK_SH` for the machines of one training.

    Returns:
        The open lock file; closing it releases the lock.

    Raises:
        HyperFormerError: Another run holds the lock; the message contains its description.
    """
    file = (folder / ".lock").open("a+b", buffering=0)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            holder = file.readline().decode(errors="replace").strip()
        raise HyperFormerError(
            f"another run is at work in {folder}{holder and f' ({holder})'}; expected a data folder that no run uses. "
            "Wait for it to end, stop it, or use another environment (--env)."
        ) from None
    file.truncate(0)
    file.write(f"{_describe_run()}\n".encode(errors="replace"))
    return file


def _describe_run() -> str:
    """Return the command, process id, machine and start time of this run in one line."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    return f"{' '.join(command.split())}, pid {os.getpid()} on {platform.node()}, since {since}"
