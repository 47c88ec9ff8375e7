"""Checks before any node runs, what was made and how long it took, and one sentence for a user's mistake."""

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

from hyperformer.config import check
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)


class UserMistakes:
    """Turns known errors into plain messages, most of them before any work."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Refuses a parameter tree that `hyperformer.config` does not know; Kedro ignores what no node reads."""
        with _one_sentence():
            try:
                parameters = context.config_loader["parameters"]
            except YAMLError as error:
                raise HyperFormerError(f"{error}; mend the YAML there".replace("\n", " ")) from None
            self._settings = check(parameters)

    @hook_impl
    def before_pipeline_run(self, pipeline: Any, catalog: Any) -> None:
        """Checks what nodes are about to use: artifacts, tasks, sources, and that backbone, method and answers fit."""
        from hyperformer import tasks

        inputs, made_here, settings = pipeline.inputs(), pipeline.all_outputs(), self._settings
        with _one_sentence():
            if "history" in inputs:
                _not_adapted(catalog, "it has no history to report")
            if "history" in made_here:
                _not_adapted(catalog, "training would replace it")
            for name in sorted(inputs):
                dataset = catalog.get(name)
                if not name.startswith("params:") and not dataset.exists():
                    raise HyperFormerError(
                        f"{name} is missing, expected in {_place(dataset)}; run the pipeline that makes it first, or "
                        "this one without --tags"
                    )
            made = tasks.make(settings.tasks)
            if "params:data" in inputs:
                from hyperformer.data import check_sources

                check_sources(made, settings.data)
            closed = [name for name, task in made.items() if task.answers]
            if "tokens" in made_here | inputs and "pretrained_backbone" not in made_here:
                from hyperformer.model import MultiTaskModel

                model = MultiTaskModel(settings.backbone, settings.chosen_method, settings.tasks)
                model.check(settings.evaluation)
            if "params:transfer" in inputs:
                from hyperformer.training import trained_model

                _in_its_own_place(settings.transfer.checkpoint, catalog.get("checkpoint"))
                trained_model(settings.transfer).check(settings.evaluation)
            if "shared_base" in made_here:
                from hyperformer.export.shared_base import check_method

                check_method(settings.chosen_method.name)
            exported = {"bundles", "shared_base"} & made_here
            if exported and closed and settings.evaluation.label_scoring == "generated":
                raise HyperFormerError(
                    "evaluation.label_scoring is 'generated', but graphs of closed tasks score their answers; export "
                    "with constrained or likelihood, or run --tags evaluate or --pipelines evaluate alone"
                )

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        with _one_sentence():
            raise error


def _in_its_own_place(trained: str, adapted: Any) -> None:
    """Refuses to adapt a checkpoint where it lies."""
    place = str(_place(adapted))
    if Path(trained).resolve() == Path(place).resolve():
        raise HyperFormerError(
            f"transfer.checkpoint is {trained!r}, where this run would write the adapted one; adapt it in an "
            "environment of its own, as --env transfer is one, or name another checkpoint"
        )


def _not_adapted(catalog: Any, why: str) -> None:
    """Refuses what is for trained checkpoints where the pipeline transfer has put an adapted one."""
    starts = catalog.get("transfer_starts")
    if starts.exists():
        raise HyperFormerError(
            f"the checkpoint in {_place(catalog.get('checkpoint'))} was adapted by the pipeline transfer, and {why}; "
            f"take another environment (--env), or remove {_place(starts)} if this one is to be trained anew"
        )


@contextmanager
def _one_sentence() -> Iterator[None]:
    """The error inside as a plain message, where it is, or came of, one that the user can mend."""
    try:
        yield
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, HyperFormerError):
                raise click.ClickException(str(cause)) from None
        for cause in causes:
            if isinstance(cause, OSError) and cause.errno is not None:
                said = f"{cause.filename}: {cause.strerror}" if cause.filename is not None else cause.strerror
            elif os.strerror(errno.ENOSPC) in str(cause):  # as libraries say it that write by themselves
                said = os.strerror(errno.ENOSPC)
            else:
                continue
            log.debug("the operating system's error", exc_info=error)
            raise click.ClickException(
                f"{said}; see to the place, its rights and its room, and run again: what is finished is kept"
            ) from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it came of."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _place(dataset: Any) -> str | None:
    """Where an artifact is kept; None where it is in memory only."""
    place = dataset._describe().get("filepath")
    return str(place) if place else None


class Alone:
    """Lock a data folder for one run at a time, and name the run at work to others; the lock ends with its process.

    DVC leaves a stage's outputs in place until its run has replaced them (`persist` in dvc.yaml): what is refused
    here has deleted nothing.
    """

    def __init__(self) -> None:
        self._claim: Any = None

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        self._context = context

    @hook_impl(wrapper=True, tryfirst=True)  # around the checks: a run that they refuse gives the lock back
    def before_pipeline_run(self) -> Generator[None, Any, Any]:
        config = self._context.config_loader
        folder = Path(self._context.project_path) / config["globals"]["data"]
        machines = config["parameters"].get("training", {}).get("machines", 1)
        with _one_sentence():
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = _lock(folder, fcntl.LOCK_SH if machines > 1 else fcntl.LOCK_EX)  # machines share a folder
        try:
            return (yield)
        except Exception:
            self._ended()
            raise

    @hook_impl
    def after_pipeline_run(self) -> None:
        self._ended()

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        self._ended()

    def _ended(self) -> None:
        if self._claim is not None:
            self._claim.close()


def _lock(folder: Path, kind: int) -> BinaryIO:
    """Lock a data folder, and write into the lock file who did.

    Raises:
        HyperFormerError: A run at work holds the lock; the message is the line that it wrote.
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
    """Return this process's command, id, machine and time, in one line."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    return f"{' '.join(command.split())}, pid {os.getpid()} on {platform.node()}, since {since}"


class Made:
    """A line for every artifact: its name, its place, and how long its node took, which is noted beside the reports."""

    @hook_impl
    def before_pipeline_run(self, catalog: Any) -> None:
        self._catalog = catalog

    @hook_impl
    def before_node_run(self, node: Any) -> None:
        self._began = time.monotonic()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        from hyperformer.progress import note

        place, seconds = _place(self._catalog.get(dataset_name)), time.monotonic() - self._began
        if place:
            log.info("made %s in %s, %.0f s", dataset_name, place, seconds)
            note(self._catalog.load("times"), dataset_name, seconds)
