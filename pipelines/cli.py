"""`kedro run`, with one sentence instead of a traceback where an environment, pipeline or tag does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines


@click.group(name="hyperformer")
def cli() -> None:
    """The project's own commands."""


def _run(**given: Any) -> Any:
    conf = Path(given["conf_source"] or "conf")
    if given["env"] and conf.is_dir():
        _known("environment", [given["env"]], [folder.name for folder in conf.iterdir() if folder.is_dir()])
    _known("pipeline", [*(given["pipelines"] or []), *filter(None, [given["pipeline"]])], pipelines)
    _known("tag", given["tags"], {tag for flow in pipelines.values() for node in flow.nodes for tag in node.tags})
    return kedro_run.callback(**given)


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    listed = sorted(known)
    for name in names:
        if name not in listed:
            near = difflib.get_close_matches(name, listed, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(listed)}"
            raise click.ClickException(f"unknown {what} {name!r}; {hint}")


cli.add_command(click.Command("run", params=kedro_run.params, callback=_run, help=kedro_run.help))
