"""The command `kedro run`, with a short error message if an environment, pipeline or tag does not exist."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines

from hyperformer.core.errors import suggest_name


@click.group(name="hyperformer")
def cli() -> None:
    """Run the commands of this project."""


def _run(**options: Any) -> Any:
    conf = Path(options["conf_source"] or "conf")
    if options["env"] and conf.is_dir():
        _check_names("environment", [options["env"]], [folder.name for folder in conf.iterdir() if folder.is_dir()])
    _check_names("pipeline", [*(options["pipelines"] or []), *filter(None, [options["pipeline"]])], pipelines)
    tags = {tag for pipeline in pipelines.values() for node in pipeline.nodes for tag in node.tags}
    _check_names("tag", options["tags"], tags)
    return kedro_run.callback(**options)


def _check_names(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise click.ClickException(f"unknown {kind} {name!r}; {suggest_name(name, known)}")


cli.add_command(click.Command("run", params=kedro_run.params, callback=_run, help=kedro_run.help))
