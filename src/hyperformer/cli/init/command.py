"""The command `init`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from hyperformer.cli.init.columns import NUMBER, read_table
from hyperformer.cli.init.draft import Choices, Draft, draft_task
from hyperformer.cli.init.render import render_parameters, render_tasks
from hyperformer.cli.init.sources import TaskFiles, find_files, remove_suffixes
from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError, suggest_name
from hyperformer.core.language import TokenCounts
from hyperformer.core.types import Source
from hyperformer.readers import RowFile

CONF = Path("conf")
DATA = Path("data")
BACKBONE = "data/minilm/06_models/backbone"
"""Default backbone, which `make minilm` downloads."""
CHECKOUT = (CONF / "base" / "parameters.yml", Path("pipelines"), Path("pyproject.toml"))
"""Paths that a checkout of this project has."""
KINDS = ("classification", "regression")
SAMPLE_ROWS = 200
"""Number of rows whose language is checked."""


def add_init_command(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `init`."""
    command.add_argument(
        "paths",
        nargs="+",
        help="a task each: a file of rows (CSV, TSV, JSONL or Parquet, plain or .gz), or a folder with such a file for "
        "train and, optionally, for validation and test",
    )
    command.add_argument("--env", required=True, help="name of the new environment, the folder conf/ENV")
    command.add_argument(
        "--label", action="append", default=[], metavar="[TASK=]COLUMN", help="the column of the label"
    )
    command.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="[TASK=]TEXT",
        help="the text that the model reads, with columns in braces; given twice, a pair of texts",
    )
    command.add_argument(
        "--kind", action="append", default=[], metavar="[TASK=]KIND", help="classification or regression"
    )
    command.add_argument(
        "--scale",
        action="append",
        default=[],
        metavar="[TASK=]MIN:MAX:STEP",
        help="the numbers that a regression can answer; others are rounded to them",
    )
    command.add_argument(
        "--merge",
        action="append",
        default=[],
        metavar="TASK:ANSWER=LABEL,LABEL…",
        help="join labels of a task in one answer",
    )
    command.add_argument(
        "--backbone", default=BACKBONE, help="folder of the pretrained model, or its name on the Hub (%(default)s)"
    )
    command.add_argument("--no-dvc", action="store_true", help="write no DVC stages, and track no copied files")
    command.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> None:
    env = _check_project(options.env, options.no_dvc)
    tasks = find_files(options.paths)
    choices = _parse_choices(options, [task.task for task in tasks])
    drafts = []
    for task in tasks:
        print(f"{task.task}: {task.argument}")
        drafts.append(draft_task(task, read_table(task.task, task.files), choices[task.task]))
        for line in [*drafts[-1].lines, *_check_language(drafts[-1], Path(options.backbone))]:
            print(f"  {line}")
    with _remove_on_error(env) as created:
        sources = {task.task: _place_files(task, env, created) for task in tasks}
        folder = CONF / env
        created.append(folder)
        folder.mkdir()
        arguments = [*options.paths, "--env", env]
        preset = "encoder" if options.backbone == BACKBONE else None  # so that it may be downloaded later
        parameters = render_parameters(env, arguments, options.backbone, preset)
        (folder / "parameters.yml").write_text(parameters, encoding="utf-8")
        (folder / "parameters_tasks.yml").write_text(render_tasks(drafts, sources), encoding="utf-8")
        print(f"wrote {folder}/parameters.yml and {folder}/parameters_tasks.yml")
        if not options.no_dvc:
            _write_stages(env, [path for path in created if path.is_relative_to(DATA)])
    _print_next_steps(env, drafts, options)


def _check_language(draft: Draft, backbone: Path) -> list[str]:
    """Return a warning if the first train texts are not in the language of the backbone, whose tokenizer is a file."""
    from tokenizers import Tokenizer  # the tokenizers of a backbone that is not there cannot be asked

    file = backbone / "tokenizer.json"
    if not file.is_file():
        return []
    tokenizer, columns = Tokenizer.from_file(str(file)), text.find_columns(draft.text)
    counts = TokenCounts(tokenizer.get_vocab_size())
    unknown = getattr(tokenizer.model, "unk_token", None)
    for _, texts in islice(RowFile(draft.files.files["train"], columns, "empty"), SAMPLE_ROWS):
        counts.add(tokenizer.encode(" ".join(map(str, texts)), add_special_tokens=False).tokens, unknown)
    problem = counts.describe_problem()
    return [] if problem is None else [f"warning: {problem} (--backbone)"]


def _check_project(env: str, without_dvc: bool) -> str:
    """Check that this is a checkout in which the environment can be written, and return the environment's name.

    Raises:
        HyperFormerError: it is not.
    """
    if not all(path.exists() for path in CHECKOUT):
        raise HyperFormerError(
            f"{Path.cwd()} is not a checkout of this project; expected the folder with conf/base and pipelines. Clone "
            "the repository, and run this in its root."
        )
    if not env.isidentifier():
        raise HyperFormerError(
            f"got the environment name {env!r}; expected letters, digits and underscores. Choose another --env."
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


def _parse_choices(options: argparse.Namespace, tasks: Sequence[str]) -> dict[str, Choices]:
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
        merges[task][answer] = merged.split(",")
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
    if value.count(":") != 2 or not all(map(NUMBER.fullmatch, numbers)) or not float(low) < float(high):
        raise HyperFormerError(f"got --scale {value!r}; expected MINIMUM:MAXIMUM:STEP, such as 0:5:0.2.")
    return low, high, step


@contextmanager
def _remove_on_error(env: str) -> Iterator[list[Path]]:
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


def _place_files(task: TaskFiles, env: str, created: list[Path]) -> str:
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


def _write_stages(env: str, copies: Sequence[Path]) -> None:
    """Track copied files with DVC, and write the stages of the environment."""
    for path in copies:
        _run("dvc", "add", "-q", str(path))
    if copies:
        print(f"tracked {', '.join(map(str, copies))} with DVC: commit the .dvc files beside them")
    _run(sys.executable, "-m", "kedro", "dvc", "--env", env)
    print(f"wrote the DVC stages of the environment, conf/{env}/dvc.yaml")


def _run(*command: str) -> None:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        lines = [line for line in (process.stderr or process.stdout).splitlines() if line.strip()]
        raise HyperFormerError(f"{shlex.join(command)} failed: {lines[-1] if lines else 'no message'}")


def _print_next_steps(env: str, drafts: Sequence[Draft], options: argparse.Namespace) -> None:
    """Print the commands that train and use the tasks."""
    bundles, first = f"data/{env}/06_models/onnx", drafts[0]
    example = shlex.quote(json.dumps(_read_example(first), ensure_ascii=False))
    steps = {
        f"kedro run --env {env} --pipelines data_profile": "look at the rows",
        f"kedro run --env {env}" if options.no_dvc else f"dvc repro conf/{env}/dvc.yaml": "train and export",
        f"hyperformer predict {bundles}/{shlex.quote(first.files.task)} {example}": "ask a task",
        f"hyperformer serve {bundles}": "serve all tasks on http://localhost:8000",
    }
    if options.backbone == BACKBONE and not Path(BACKBONE).exists():
        steps = {"make minilm": "download the pretrained encoder", **steps}
    print("next:")
    for command, purpose in steps.items():
        print(f"  {command}  # {purpose}")


def _read_example(draft: Draft) -> Mapping[str, str | None]:
    """Return the text columns of the first row."""
    columns = text.find_columns(draft.text)
    _, values = next(iter(RowFile(draft.files.files["train"], columns, "empty")))
    return dict(zip(columns, values, strict=True))
