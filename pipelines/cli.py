"""`kedro run`, with one sentence instead of a traceback where an environment, pipeline or tag does not exist."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines

from hyperformer.config import nearest


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


def _known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise click.ClickException(f"unknown {what} {name!r}; {nearest(name, known)}")


cli.add_command(click.Command("run", params=kedro_run.params, callback=_run, help=kedro_run.help))
