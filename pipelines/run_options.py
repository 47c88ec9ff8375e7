"""Checks of the options of `kedro run`, so that a wrong name or value ends in one sentence before the run starts."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import kedro.runner
from kedro.framework.project import pipelines
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner
from kedro.utils import load_obj
from omegaconf import OmegaConf

from hyperformer.core.errors import first_line, suggest_name
from pipelines.config_files import parse_file

FILTERS = {
    "tags": "tags",
    "from_nodes": "from_nodes",
    "to_nodes": "to_nodes",
    "node_names": "node_names",
    "from_inputs": "from_inputs",
    "to_outputs": "to_outputs",
    "namespaces": "node_namespaces",
}
"""Argument of `Pipeline.filter` for each option that selects nodes."""
BLOCKS = ("params", "runner_params")
"""Options that are mappings in a file of options."""
FLAGS = ("is_async", "only_missing_outputs")
"""Options that are booleans in a file of options."""


def check_options(options: Mapping[str, Any]) -> None:
    """Check the names in the options of `kedro run`, and that they select at least one node.

    Raises:
        click.ClickException: A name is unknown, the runner cannot be created, or no node is selected.
    """
    conf, env = options["conf_source"] or "conf", options["env"] or os.environ.get("KEDRO_ENV")
    if Path(conf).is_dir():
        check_environment(Path(conf), env)
    elif "://" not in conf and not conf.endswith((".zip", ".tar.gz", ".tgz", ".tar")):
        raise click.ClickException(
            f"{conf} is not a folder; expected the configuration. Restore it, or change the path."
        )
    chosen = [*(options["pipelines"] or []), *filter(None, [options["pipeline"]])]
    _check_names("pipeline", chosen, pipelines)
    _check_runner(options["runner"] or "SequentialRunner", options["runner_params"])
    _check_selection(options, chosen or ["__default__"])


def check_environment(conf: Path, env: str | None) -> None:
    """Check the name of an environment.

    Raises:
        click.ClickException: The configuration folder has no such environment.
    """
    _check_names("environment", filter(None, [env]), [path.name for path in conf.iterdir() if path.is_dir()])


def check_file(file: Path, known: Collection[str]) -> None:
    """Check a file of options (`kedro run --config`).

    Raises:
        HyperFormerError: The file is not valid YAML.
        click.ClickException: The file has no mapping `run`, or an option in it is unknown or has an invalid type.
    """
    options = OmegaConf.to_container(parse_file(file, file.read_bytes())).get("run")  # type: ignore[union-attr]
    if not isinstance(options, dict):
        raise click.ClickException(f"{file} has no mapping `run`; expected the options of kedro run in it. Add it.")
    _check_names("option", map(str, options), known, f" in {file}")
    for name, value in options.items():
        expected = (dict, "mapping") if name in BLOCKS else (bool, "boolean") if name in FLAGS else (str, "text")
        if not isinstance(value, expected[0]):
            raise click.ClickException(
                f"the option {name!r} in {file} is {value!r}; expected a {expected[1]}. Quote a text, and separate "
                "several names by commas."
            )


def _check_names(kind: str, names: Iterable[str], known: Collection[str], where: str = "") -> None:
    for name in names:
        if name not in known:
            hint = suggest_name(name, known) if known else "expected none, because there is none in the project"
            raise click.ClickException(f"unknown {kind} {name!r}{where}; {hint}")


def _check_runner(name: str, params: Mapping[str, Any]) -> None:
    known = [name for name in kedro.runner.__all__ if name not in ("AbstractRunner", "Task")]
    if "." not in name:
        _check_names("runner", [name], known)
    try:
        runner = load_obj(name, "kedro.runner")
        valid = issubclass(runner, AbstractRunner)
    except (ImportError, AttributeError, TypeError, ValueError):
        valid = False
    if not valid:
        raise click.ClickException(
            f"cannot import the runner {name!r}; expected one of {', '.join(known)}, or a class."
        )
    _check_names("runner parameter", params, inspect.signature(runner).parameters, f" of {name}")
    try:
        if not isinstance(params.get("is_async", False), bool):
            raise TypeError("is_async is not a boolean")
        runner(**params)
    except (TypeError, ValueError) as error:
        raise click.ClickException(
            f"invalid --runner-params {dict(params)} for {name} ({first_line(error)}). Change it."
        ) from None


def _check_selection(options: Mapping[str, Any], chosen: Collection[str]) -> None:
    """Check the names of nodes, datasets, tags and namespaces, and that some node has all that is selected."""
    nodes = {name: {node.name for node in pipeline.nodes} for name, pipeline in pipelines.items()}
    datasets = {
        name: {dataset for dataset in pipeline.datasets() if not dataset.startswith("params:")} - {"parameters"}
        for name, pipeline in pipelines.items()
    }
    all_nodes = [node for pipeline in pipelines.values() for node in pipeline.nodes]
    _check_names("tag", options["tags"], {tag for node in all_nodes for tag in node.tags})
    _check_names("namespace", options["namespaces"], {node.namespace for node in all_nodes if node.namespace})
    for option in ("node_names", "from_nodes", "to_nodes"):
        _check_chosen("node", options[option], nodes, chosen)
    for option in ("from_inputs", "to_outputs", "load_versions"):
        _check_chosen("dataset", options[option], datasets, chosen)
    selected: Pipeline = sum((pipelines[name] for name in chosen), Pipeline([]))
    try:
        selected.filter(**{argument: options[option] or None for option, argument in FILTERS.items()})
    except ValueError:
        used = [name.replace("_", "-").replace("node-names", "nodes") for name in FILTERS if options[name]]
        raise click.ClickException(
            f"no node of the pipeline {', '.join(chosen)} matches --{' and --'.join(used)}; expected at least one. "
            "Remove an option, or choose another pipeline (--pipelines)."
        ) from None


def _check_chosen(
    kind: str, names: Iterable[str], by_pipeline: Mapping[str, Collection[str]], chosen: Collection[str]
) -> None:
    """Check that names are in one of the chosen pipelines; name another pipeline that has them."""
    _check_names(kind, names, {name for names in by_pipeline.values() for name in names})
    for name in names:
        if not any(name in by_pipeline[pipeline] for pipeline in chosen):
            others = [pipeline for pipeline, known in by_pipeline.items() if name in known]
            raise click.ClickException(
                f"the {kind} {name!r} is not in the pipeline {', '.join(chosen)}; expected one of its {kind}s. Choose "
                f"a pipeline that has it: --pipelines {others[0]}."
            )
