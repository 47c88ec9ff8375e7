"""Kedro hooks: checks before the first node, short messages for user errors, a run lock, and a log of artifacts."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
from kedro.framework.hooks import hook_impl
from yaml import YAMLError

from hyperformer.core.errors import HyperFormerError
from hyperformer.preflight.settings import check_settings

log = logging.getLogger(__name__)


class UserErrorHooks:
    """Hooks that report user errors as short messages without a traceback, if possible before the first node runs."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Validate all parameters, including those that no node reads, which Kedro would ignore."""
        with _short_message():
            try:
                parameters = context.config_loader["parameters"]
            except YAMLError as error:
                raise HyperFormerError(f"{error} Fix the YAML in this file.".replace("\n", " ")) from None
            self._settings = check_settings(parameters)

    @hook_impl
    def before_pipeline_run(self, pipeline: Any, catalog: Any) -> None:
        """Check that the inputs of the pipeline exist, and that the settings that it uses are compatible."""
        from hyperformer import tasks

        inputs, outputs, settings = pipeline.inputs(), pipeline.all_outputs(), self._settings
        with _short_message():
            if "history" in inputs:
                _refuse_adapted_checkpoint(catalog, "it has no history to report")
            if "history" in outputs:
                _refuse_adapted_checkpoint(catalog, "training would replace it")
            for name in sorted(inputs):
                dataset = catalog.get(name)
                if not name.startswith("params:") and not dataset.exists():
                    raise HyperFormerError(
                        f"{name} is missing; expected it at {_path(dataset)}. Run the pipeline that creates it first, "
                        "or run this one without --tags."
                    )
            tasks_by_name = tasks.make_tasks(settings.tasks)
            if "params:data" in inputs:
                from hyperformer.data.sources import check_sources

                check_sources(tasks_by_name, settings.data)
            labelled = [name for name, task in tasks_by_name.items() if task.answers]
            if "tokens" in outputs | inputs and "pretrained_backbone" not in outputs:
                from hyperformer.model.multi_task import MultiTaskModel

                model = MultiTaskModel(settings.backbone, settings.chosen_method, settings.tasks)
                model.check(settings.evaluation)
            if "params:transfer" in inputs:
                from hyperformer.training import load_trained_model

                _check_checkpoint_differs(settings.transfer.checkpoint, catalog.get("checkpoint"))
                load_trained_model(settings.transfer).check(settings.evaluation)
            if "shared_base" in outputs:
                from hyperformer.export.shared_base import check_method

                check_method(settings.chosen_method.name)
            exported = {"bundles", "shared_base"} & outputs
            if exported and labelled and settings.evaluation.label_scoring == "generated":
                raise HyperFormerError(
                    "evaluation.label_scoring is 'generated'; expected 'constrained' or 'likelihood', because exported "
                    "graphs score the answers of classification and regression tasks. Change the setting, or evaluate "
                    "without export (--tags evaluate or --pipelines evaluate)."
                )

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Report an error of a node as a short message if the user can fix it."""
        with _short_message():
            raise error


def _check_checkpoint_differs(trained: str, adapted: Any) -> None:
    """Refuse a transfer whose adapted checkpoint would overwrite the trained checkpoint that it reads."""
    path = str(_path(adapted))
    if Path(trained).resolve() == Path(path).resolve():
        raise HyperFormerError(
            f"transfer.checkpoint is {trained!r}, which this run would overwrite with the adapted checkpoint. Use "
            "another environment, such as --env transfer, or another checkpoint."
        )


def _refuse_adapted_checkpoint(catalog: Any, reason: str) -> None:
    """Refuse the run if the pipeline `transfer` wrote this environment's checkpoint.

    Args:
        catalog: The catalog of the environment.
        reason: The part of the error message that says why the run is refused.
    """
    starts = catalog.get("transfer_starts")
    if starts.exists():
        raise HyperFormerError(
            f"the checkpoint in {_path(catalog.get('checkpoint'))} was adapted by the pipeline transfer, and {reason}. "
            f"Use another environment (--env), or remove {_path(starts)} to train here from scratch."
        )


@contextmanager
def _short_message() -> Iterator[None]:
    """Replace an error in the block by a short message, if the user can fix the error or its cause."""
    try:
        yield
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, HyperFormerError):
                raise click.ClickException(str(cause)) from None
        for cause in causes:
            if isinstance(cause, OSError) and cause.errno is not None:
                message = f"{cause.filename}: {cause.strerror}" if cause.filename is not None else cause.strerror
            elif os.strerror(errno.ENOSPC) in str(cause):  # libraries in C++ or Rust raise other types of errors
                message = os.strerror(errno.ENOSPC)
            else:
                continue
            log.debug("error of the operating system", exc_info=error)
            raise click.ClickException(
                f"{message}. Check the path, its permissions and free disk space, then run again; finished stages are "
                "kept."
            ) from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then the chain of errors that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _path(dataset: Any) -> str | None:
    """Return the path of a dataset; None if it is only in memory."""
    path = dataset._describe().get("filepath")
    return str(path) if path else None


class RunLock:
    """Hooks that lock the data folder for one run at a time; a refused run reports which run holds the lock.

    Runs with several machines share the lock, because the machines of one training use one folder.
    The lock ends with its process. A refused run deletes nothing: DVC keeps the outputs of a stage until its run
    has replaced them (`persist` in dvc.yaml).
    """

    def __init__(self) -> None:
        self._lock_file: Any = None

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Keep the context for later hooks."""
        self._context = context

    @hook_impl(wrapper=True, tryfirst=True)  # around the checks, to release the lock if they fail
    def before_pipeline_run(self) -> Generator[None, Any, Any]:
        """Lock the data folder, and release it if another hook refuses the run."""
        config = self._context.config_loader
        folder = Path(self._context.project_path) / config["globals"]["data"]
        machines = config["parameters"].get("training", {}).get("machines", 1)
        with _short_message():
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


class ArtifactLog:
    """Hooks that log each saved artifact with its path and duration, and write the durations to the folder `times`.

    The duration of an artifact is the time from the start of its node until it is saved.
    """

    @hook_impl
    def before_pipeline_run(self, catalog: Any) -> None:
        """Keep the catalog for later hooks."""
        self._catalog = catalog

    @hook_impl
    def before_node_run(self, node: Any) -> None:
        """Start the clock of a node."""
        self._start = time.monotonic()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log a saved dataset and record its duration, unless the dataset is only in memory."""
        from hyperformer.core.progress import record_duration

        path, seconds = _path(self._catalog.get(dataset_name)), time.monotonic() - self._start
        if path:
            log.info("saved %s to %s (%.0f s)", dataset_name, path, seconds)
            record_duration(self._catalog.load("times"), dataset_name, seconds)
