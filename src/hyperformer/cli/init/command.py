"""The command `init`."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from hyperformer.cli.init.columns import read_table
from hyperformer.cli.init.draft import MAX_TOKENS, TOKENS_PER_WORD, Draft, draft_task
from hyperformer.cli.init.options import add_options, list_arguments, parse_choices
from hyperformer.cli.init.project import (
    BACKBONE,
    CONF,
    DATA,
    check_backbone,
    check_project,
    locate_checkpoint,
    place_files,
    read_backbone,
    remove_on_error,
    track_copies,
    write_stages,
)
from hyperformer.cli.init.render import EPOCHS, render_parameters, render_tasks, render_transfer
from hyperformer.cli.init.sources import find_files
from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.language import TokenCounts
from hyperformer.readers import RowFile

PRODUCT, PRODUCTS = 1024, 20
"""Size and number of the matrix products that measure a machine."""
FLOPS_PER_TOKEN = 1.0e8
"""Operations of a matrix product that take as long as a token of a training step of MiniLM in float32."""
START_SECONDS = 90
"""Seconds that the run of a small environment takes besides training."""
SAMPLE_ROWS = 200
"""Number of rows whose language is checked, and of which one is an example."""
MAX_EXAMPLE = 300
"""Maximum number of characters of a text in the example."""


def add_init_command(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `init`."""
    add_options(command)
    command.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> None:
    env = check_project(options.env, options.no_dvc)
    if options.onto is not None:
        options.backbone = read_backbone(options.onto)
    else:
        check_backbone(options.backbone)
    tasks = find_files(options.paths)
    choices = parse_choices(options, [task.task for task in tasks])
    drafts = []
    for task in tasks:
        print(f"{task.task}: {task.argument}")
        drafts.append(draft_task(task, read_table(task.task, task.files), choices[task.task]))
        for line in [*drafts[-1].lines, *_check_language(drafts[-1], Path(options.backbone))]:
            print(f"  {line}")
    _check_tasks(drafts)
    with remove_on_error(env) as created:
        sources = {task.task: place_files(task, env, created) for task in tasks}
        folder = CONF / env
        created.append(folder)
        folder.mkdir()
        preset = "encoder" if options.backbone == BACKBONE else None  # so that it may be downloaded later
        rows = max(draft.rows["train"] for draft in drafts)
        transfer = render_transfer(locate_checkpoint(options.onto), rows) if options.onto else ""
        parameters = render_parameters(env, list_arguments(options), options.backbone, preset) + transfer
        (folder / "parameters.yml").write_text(parameters, encoding="utf-8")
        (folder / "parameters_tasks.yml").write_text(render_tasks(drafts, sources), encoding="utf-8")
        print(f"wrote {folder}/parameters.yml and {folder}/parameters_tasks.yml")
        print("exported tasks will show the texts of a validation row on the server's page (export.examples)")
        if not options.no_dvc:
            track_copies([path for path in created if path.is_relative_to(DATA)])
            if options.onto is None:  # transfer has no stages
                write_stages(env)
    _print_next_steps(env, drafts, options)


def _check_tasks(drafts: Sequence[Draft]) -> None:
    """Check the settings of the tasks as a run checks them.

    Raises:
        HyperFormerError: a name, label or other setting is invalid.
    """
    import yaml
    from pydantic import ValidationError

    import hyperformer.tasks  # noqa: F401 - registers the settings of kinds of tasks
    from hyperformer.settings import Tasks

    content = yaml.safe_load(render_tasks(drafts, {draft.files.task: "." for draft in drafts}))
    try:
        Tasks.model_validate(content["tasks"])
    except ValidationError as error:
        fault = error.errors()[0]
        task = f"{fault['loc'][0]}: " if fault["loc"] else ""
        raise HyperFormerError(f"{task}{fault['msg'].removeprefix('Value error, ')}.") from None


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


def _estimate_duration(drafts: Sequence[Draft]) -> str:
    """Estimate how long the run of the environment takes here, with MiniLM and the preset's ten epochs.

    A matrix product measures this machine. Its ratio to a training step was measured on two CPUs with AVX-512.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((PRODUCT, PRODUCT), dtype=np.float32) for _ in range(2))
    a @ b  # starts the threads
    start = time.perf_counter()
    for _ in range(PRODUCTS):
        a @ b
    flops = PRODUCTS * 2 * PRODUCT**3 / (time.perf_counter() - start)
    tokens = sum(
        EPOCHS * draft.rows["train"] * min(TOKENS_PER_WORD * draft.words_per_row + 2, MAX_TOKENS) for draft in drafts
    )
    minutes = (tokens * FLOPS_PER_TOKEN / flops + START_SECONDS) / 60
    return f"{minutes + 0.5:.0f} min" if minutes < 100 else f"{minutes / 60:.0f} hours (fewer: training.epochs)"


def _print_next_steps(env: str, drafts: Sequence[Draft], options: argparse.Namespace) -> None:
    """Print the commands that train and use the tasks."""
    bundles, first = f"data/{env}/06_models/onnx", drafts[0]
    example = shlex.quote(json.dumps(_read_example(first), ensure_ascii=False))
    if options.onto is not None:
        train = f"kedro run --env {env} --pipelines transfer"
    else:
        train = f"kedro run --env {env}" if options.no_dvc else f"dvc repro conf/{env}/dvc.yaml"
    duration = f", about {_estimate_duration(drafts)} here" if options.backbone == BACKBONE else ""
    steps = {
        f"kedro run --env {env} --pipelines data_profile": "look at the rows",
        train: f"train and export{duration}",
        f"hyperformer predict {bundles}/{shlex.quote(first.files.task)} {example}": "ask a task",
        f"hyperformer serve {bundles}": "serve all tasks on http://localhost:8000",
    }
    if options.backbone == BACKBONE and not Path(BACKBONE).exists():
        steps = {"make minilm": "download the pretrained encoder", **steps}
    if options.onto is not None:
        print(
            f"unchanged: conf/{options.onto}, its trained model and its exported tasks; each new task has its own copy"
        )
    print("next:")
    for command, purpose in steps.items():
        print(f"  {command}  # {purpose}")


def _read_example(draft: Draft) -> dict[str, str]:
    """Return the text columns of the shortest of the first rows that have a text."""
    columns = text.find_columns(draft.text)
    rows = islice(RowFile(draft.files.files["train"], columns, "empty"), SAMPLE_ROWS)
    texts = [values for _, values in rows if all(values)]
    values = min(texts, key=lambda row: sum(map(len, map(str, row))), default=("",) * len(columns))
    return {column: str(value)[:MAX_EXAMPLE] for column, value in zip(columns, values, strict=True)}
