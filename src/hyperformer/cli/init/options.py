"""The options of the command `init`, and what they set for each task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hyperformer.cli.init.columns import NUMBER
from hyperformer.cli.init.draft import Choices
from hyperformer.cli.init.project import BACKBONE
from hyperformer.core.errors import HyperFormerError, suggest_name
from hyperformer.core.types import Source

KINDS = ("classification", "regression")
REPEATED = {
    "label": ("[TASK=]COLUMN", "the column of the label"),
    "text": (
        "[TASK=]TEXT",
        "the text that the model reads, with columns in braces; given twice, a pair of texts",
    ),
    "kind": ("[TASK=]KIND", "classification or regression"),
    "scale": (
        "[TASK=]MIN:MAX:STEP",
        "the numbers that a regression can answer, to which the labels are rounded; write --scale=-1:1:0.1 for a "
        "negative minimum",
    ),
    "merge": ("TASK:ANSWER=LABEL,LABEL…", "join labels of a task in one answer"),
}
"""Options that may be given for each task: the form of the value, and the description."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `init`."""
    command.add_argument(
        "paths",
        nargs="+",
        help="a task each: a file of rows (CSV, TSV, JSONL or Parquet, plain or .gz), or a folder with such a file for "
        "train and, optionally, for validation and test",
    )
    command.add_argument("--env", required=True, help="name of the new environment, the folder conf/ENV")
    for name, (form, description) in REPEATED.items():
        command.add_argument(f"--{name}", action="append", default=[], metavar=form, help=description)
    command.add_argument(
        "--backbone", default=BACKBONE, help="folder of the pretrained model, or its name on the Hub (%(default)s)"
    )
    command.add_argument(
        "--onto", metavar="ENV", help="adapt the model that the environment ENV has trained, one copy for each new task"
    )
    command.add_argument("--no-dvc", action="store_true", help="write no DVC stages, and track no copied files")


def list_arguments(options: argparse.Namespace) -> list[str]:
    """Return the arguments of the command that describe the tasks."""
    arguments = [*options.paths, "--env", options.env]
    for name in REPEATED:
        arguments += [f"--{name}={value}" for value in getattr(options, name)]
    if options.backbone != BACKBONE and options.onto is None:
        arguments.append(f"--backbone={options.backbone}")
    if options.onto is not None:
        arguments.append(f"--onto={options.onto}")
    return [*arguments, *(["--no-dvc"] if options.no_dvc else [])]


def parse_choices(options: argparse.Namespace, tasks: Sequence[str]) -> dict[str, Choices]:
    """Return what the options set for each task."""
    labels, texts, kinds, scales = (
        _assign(getattr(options, name), tasks) for name in ("label", "text", "kind", "scale")
    )
    for kind in (kind for values in kinds.values() for kind in values):
        if kind not in KINDS:
            raise HyperFormerError(f"unknown kind {kind!r}; {suggest_name(kind, KINDS)}")
    merges: dict[str, dict[str, list[str]]] = {task: {} for task in tasks}
    for argument in options.merge:
        task, colon, rest = argument.partition(":")
        answer, equals, merged = rest.partition("=")
        if task not in merges or not (colon and equals and answer and merged):
            raise HyperFormerError(
                f"got --merge {argument!r}; expected TASK:ANSWER=LABEL,LABEL with a task of these files."
            )
        merges[task].setdefault(answer, []).extend(merged.split(","))
    return {
        task: Choices(
            label=_single("label", task, labels[task]),
            text=_to_source(task, texts[task]),
            kind=_single("kind", task, kinds[task]),
            scale=_to_scale(_single("scale", task, scales[task])),
            merge=merges[task],
        )
        for task in tasks
    }


def _assign(arguments: Sequence[str], tasks: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of an option by task; a value without a task is for all of them."""
    values: dict[str, list[str]] = {task: [] for task in tasks}
    for argument in arguments:
        task, equals, value = argument.partition("=")
        for name in [task] if equals and task in values else tasks:
            values[name].append(value if equals and task in values else argument)
    return values


def _single(option: str, task: str, values: Sequence[str]) -> str | None:
    if len(values) > 1:
        raise HyperFormerError(f"got --{option} {len(values)} times for {task}; expected it once.")
    return values[0] if values else None


def _to_source(task: str, values: Sequence[str]) -> Source | None:
    if len(values) > 2:
        raise HyperFormerError(f"got --text {len(values)} times for {task}; expected a text, or a pair of texts.")
    return None if not values else values[0] if len(values) == 1 else (values[0], values[1])


def _to_scale(value: str | None) -> tuple[str, str, str] | None:
    if value is None:
        return None
    low, high, step = numbers = (*value.split(":"), "", "", "")[:3]
    if value.count(":") != 2 or not all(map(NUMBER.fullmatch, numbers)):
        raise HyperFormerError(f"got --scale {value!r}; expected MINIMUM:MAXIMUM:STEP, such as 0:5:0.2.")
    if not (float(low) < float(high) and float(step) > 0):
        raise HyperFormerError(f"got --scale {value!r}; expected a maximum above the minimum, and a step above 0.")
    return low, high, step
