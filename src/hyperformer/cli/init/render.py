"""The configuration of an environment as commented YAML."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyperformer.cli.init.draft import Draft

PLAIN = re.compile(r"[A-Za-z_][\w -]*")
"""Texts that YAML reads as themselves without quotes, apart from `RESERVED`."""
TRANSFER_ROWS = 16
"""Rows of a batch, in the adaptation of a trained model."""
TRANSFER_STEPS = (100, 2000)
"""Least and largest number of steps of the adaptation."""
EPOCHS = 10
"""Epochs of the adaptation, within `TRANSFER_STEPS`."""
BREAKS = "\x7f\x85\u2028\u2029\ufeff"
"""Characters that JSON has in texts as they are, and YAML has not."""
RESERVED = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def quote(value: str) -> str:
    """Return a text as a YAML scalar; in double quotes, YAML reads what JSON writes."""
    is_plain = PLAIN.fullmatch(value) and value.strip() == value and value.lower() not in RESERVED
    return value if is_plain else _quote_always(value)


def _quote_always(value: str) -> str:
    """Return a text in double quotes, without interpolation of `${`, and with breaks of lines escaped."""
    quoted = json.dumps(value.replace("${", "\\${"), ensure_ascii=False)
    return "".join(f"\\u{ord(char):04x}" if char in BREAKS else char for char in quoted)


def render_parameters(env: str, arguments: Sequence[str], backbone: str, preset: str | None) -> str:
    """Render the settings that all tasks share.

    Args:
        env: the name of the environment.
        arguments: the arguments of the command.
        backbone: folder of the backbone, or its name on the Hub.
        preset: the preset; None: that of the backbone, which must be there when settings are read.
    """
    command = " ".join(shlex.join(["hyperformer", "init", *arguments]).split())
    preset = "" if preset is None else f"preset: {preset}  # the defaults for this kind of backbone\n"
    return f"""# The environment {env}, written by: {command}
# Change it as you like. `kedro settings --env {env}` lists every setting with its value and its source.

backbone:
  path: {quote(backbone)}
{preset}
# The page of the server shows a validation row of each task. Remove this if the rows are private.
export:
  examples: true
"""


def render_transfer(checkpoint: Path, rows: int) -> str:
    """Render the settings of the adaptation of a trained model to tasks with at most `rows` training rows."""
    steps = min(max(TRANSFER_STEPS[0], EPOCHS * rows // TRANSFER_ROWS), TRANSFER_STEPS[1])
    return f"""
# docs/methods.md#few-shot-transfer describes these settings.
transfer:
  checkpoint: {quote(str(checkpoint))}
  samples: null  # all rows
  batch_size: {TRANSFER_ROWS}
  steps: {steps}
  warmup_steps: {steps // 10}
"""


def render_tasks(drafts: Sequence[Draft], sources: Mapping[str, str]) -> str:
    """Render the tasks.

    Args:
        drafts: the settings of each task.
        sources: the folder of each task's files.
    """
    blocks = [_render_task(draft, sources[draft.files.task]) for draft in drafts]
    return "# docs/tasks.md describes these settings.\ntasks:\n" + "\n".join(blocks)


def _render_task(draft: Draft, source: str) -> str:
    lines = [
        f"{quote(draft.files.task)}:",
        *(f"  # {' '.join(line.split())}" for line in draft.lines),
        f"  source: {{path: {quote(source)}}}",
        f"  text: {_render_text(draft)}",
        f"  kind: {draft.kind}",
        f"  label_column: {quote(draft.label)}",
    ]
    if draft.grid is not None:
        lines += [f"  {name}: {value}" for name, value in zip(("minimum", "maximum", "step"), draft.grid, strict=True)]
    else:
        lines.append("  labels:  # value of the label column: answer; beside it, the number of training rows")
        lines += [f"    {quote(label)}: {quote(label)}  # {count:,}" for label, count in draft.labels.items()]
    if draft.merge:
        lines.append("  merge_labels:")
        lines += [f"    {quote(answer)}: [{', '.join(map(quote, merged))}]" for answer, merged in draft.merge.items()]
    lines.append(f"  metrics: [{', '.join(draft.metrics)}]")
    if draft.missing is not None:
        lines.append(f"  missing: {draft.missing}")
    if draft.splits:
        lines.append(f"  splits: {{{', '.join(f'{split}: {quote(rule)}' for split, rule in draft.splits.items())}}}")
    return "".join(f"  {line}\n" for line in lines)


def _render_text(draft: Draft) -> str:
    if isinstance(draft.text, str):
        return _quote_always(draft.text)
    return f"[{', '.join(map(_quote_always, draft.text))}]"
