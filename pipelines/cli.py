"""The commands `kedro run`, `dvc` and `settings`, which run in the project's folder and have errors of one sentence."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import KedroCliError
from kedro.framework.project import LOGGING
from kedro.framework.startup import ProjectMetadata
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hyperformer.core.errors import first_line
from hyperformer.settings.merge import list_values
from pipelines.config_files import parse_file
from pipelines.config_loader import ConfigLoader
from pipelines.hooks.error_messages import short_message
from pipelines.hooks.interruption import PROGRESS
from pipelines.run_options import check_environment, check_file, check_options
from pipelines.settings import CONFIG_LOADER_ARGS


@click.group(name="hyperformer")
def cli() -> None:
    """Run the commands of this project."""


class RunCommand(click.Command):
    """Kedro's command `run`, whose errors are messages of one sentence."""

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Parse the command line."""
        with _one_sentence():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the pipeline in the project's folder, to which relative paths in settings refer."""
        with _interruptible(), _one_sentence(), _project_folder(ctx):
            return super().invoke(ctx)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Exit with a message and the status of shells, 130, if Ctrl-C interrupts the block."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\n{PROGRESS.describe_interruption(sys.argv[1:])}", err=True)
        raise SystemExit(128 + signal.SIGINT) from None


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        with short_message():
            yield
    except KedroCliError as error:  # it would also print the type of the error and a hint about --verbose
        raise click.ClickException(" ".join(error.message.split())) from None


@contextlib.contextmanager
def _project_folder(ctx: click.Context) -> Iterator[None]:
    """Change to the project's folder, and use the logging configuration that Kedro only finds there."""
    project = ctx.find_object(ProjectMetadata)
    root = project.project_path if project else Path.cwd()
    if root != Path.cwd() and "KEDRO_LOGGING_CONFIG" not in os.environ:
        file = root / "conf" / "logging.yml"
        try:
            LOGGING.configure(OmegaConf.to_container(parse_file(file, file.read_bytes())))  # type: ignore[arg-type]
        except ValueError as error:
            raise click.ClickException(f"{file} is invalid: {first_line(error)}. Fix this file.") from None
    with contextlib.chdir(root):
        yield


@cli.command("dvc")
@click.option("--env", "-e", envvar="KEDRO_ENV", default="base", show_default=True, help="Environment to write for.")
@click.pass_context
def write_dvc_files(ctx: click.Context, env: str) -> None:
    """Write the dvc.yaml files of an environment."""
    from pipelines.stages import write_stages

    with _one_sentence(), _project_folder(ctx):
        check_environment(Path("conf"), env)
        chain, optional = write_stages(env)
    click.echo(f"wrote {chain} and {optional}; run the stages with: dvc repro {chain}")


def _run(**options: Any) -> Any:
    check_options(options)
    return kedro_run.callback(**options)


def _params() -> list[click.Parameter]:
    """Return the options of Kedro's command, with callbacks whose errors are messages."""
    params = [copy.copy(param) for param in kedro_run.params]
    for param in params:
        if param.name in ("params", "runner_params"):
            param.callback = _parse_pairs
        if param.name == "config":
            param.callback = _parse_file
    return params


def _parse_pairs(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    try:
        return _KEDRO[param.name](ctx, param, value)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise click.BadParameter(
            f"cannot parse {value!r} ({first_line(error)}); expected name=value, separated by commas, with values in "
            r"YAML that contain no comma. Quote a value with special characters, and write \${ for a literal ${."
        ) from None


def _parse_file(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    if value:
        check_file(Path(value), [param.name for param in kedro_run.params if param.name != "config"])
    return _KEDRO[param.name](ctx, param, value)


@cli.command("settings")
@click.option("--env", "-e", envvar="KEDRO_ENV", help="Environment, a folder in conf; base and local if it is not set.")
@click.option("--params", default="", callback=_parse_pairs, help="As in kedro run.")
@click.pass_context
def show_settings(ctx: click.Context, env: str | None, params: dict[str, Any]) -> None:
    """Print every setting of an environment with its value and its source."""
    from hyperformer.preflight.settings import check_settings

    with _one_sentence(), _project_folder(ctx):
        check_environment(Path("conf"), env)
        loader = ConfigLoader("conf", env=env, runtime_params=params, **CONFIG_LOADER_ARGS)
        settings = check_settings(loader["parameters"])
    for name, value, source in list_values(settings.model_dump(mode="json"), loader.origins):
        click.echo(f"{name}: {json.dumps(value, ensure_ascii=False)}  # {source}")


_KEDRO: dict[str | None, Any] = {param.name: param.callback for param in kedro_run.params}
cli.add_command(RunCommand("run", params=_params(), callback=_run, help=kedro_run.help))
