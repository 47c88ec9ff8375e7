"""Build the stages of an environment: what each reads, runs and makes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kedro.framework.project import pipelines
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from hyperformer.core.errors import HyperFormerError
from hyperformer.preflight.settings import check_settings
from pipelines.config_loader import ConfigLoader
from pipelines.datasets import WorkingFolderDataset, get_path
from pipelines.stages.imports import PACKAGES, ImportGraph
from pipelines.stages.inputs import check_relative, find_backbone, list_row_files, reads_language_rows

BASE = "base"
LOCAL = "local"
CONF = Path("conf")
CHAIN = (
    "settings",
    "language",
    "preprocess",
    "pretrain",
    "train",
    "evaluate",
    "parameter_counts",
    "baselines",
    "export",
    "report",
    "check_quality",
)
"""Stages of the default run, in the order in which they run."""
OPTIONAL = ("shared_base", "data_profile")
"""Stages that are in a file of their own, because a default run does not include them."""
LOCKED_PACKAGES = "requirements.lock"
METRICS = ("metrics", "parameter_counts")
PLOTS: dict[str, dict[str, Any]] = {
    "figures": {},
    "history": {"x": "step", "y": "mean", "title": "validation mean, percent"},
}
"""Datasets that `dvc plots` shows, with their options."""
UNCACHED = ("pretrained_backbone",)
"""Datasets that git tracks."""
ARTIFACTS = {
    "checkpoint": "trained weights of all tasks, without the backbone",
    "bundles": "a verified ONNX bundle for each task",
    "shared_base": "one ONNX graph that all tasks share, and an adapter file for each task",
}
"""Datasets for a model registry, with their descriptions."""


def build_files(env: str) -> dict[Path, dict[str, Any]]:
    """Build the contents of the two dvc.yaml files of an environment: the default run, and the optional stages.

    Paths are relative to the current folder, which is the root of the project.

    Args:
        env: Name of the environment.

    Raises:
        HyperFormerError: The settings are invalid, or an input would be missing in a clone.
    """
    if env == LOCAL:
        raise HyperFormerError(
            f"the environment {env!r} is private to one machine; expected an environment that git tracks. Use --env "
            f"{BASE}, or copy conf/{env} to a folder of another name."
        )
    chain, optional = list_files(env)
    builder = _StageBuilder(env)
    return {chain: builder.build(chain, CHAIN), optional: builder.build(optional, OPTIONAL)}


def list_files(env: str) -> tuple[Path, Path]:
    """Return the paths of the two dvc.yaml files of an environment."""
    if env == BASE:
        return Path("dvc.yaml"), Path("pipelines/dvc.yaml")
    return CONF / env / "dvc.yaml", CONF / env / "optional" / "dvc.yaml"


class _StageBuilder:
    def __init__(self, env: str) -> None:
        self._env = env
        self._loader = ConfigLoader(conf_source=str(CONF), env=env, base_env=BASE, default_run_env=LOCAL)
        self._settings = check_settings(self._loader["parameters"])
        self._catalog = DataCatalog.from_config(self._loader["catalog"])
        data = self._loader["globals"]["data"]
        self._rows = list_row_files(self._settings, data)
        self._has_language = reads_language_rows(self._settings)
        if env == BASE:
            check_relative("pretraining.text_file", self._settings.pretraining.text_file)
        path = self._settings.backbone.path
        has_stage = env == BASE and path == self._path("pretrained_backbone")
        self._backbone = path if has_stage else find_backbone(self._settings, data)
        self._imports = ImportGraph()

    def build(self, file: Path, names: Iterable[str]) -> dict[str, Any]:
        """Return the content of a dvc.yaml with the stages of this environment among `names`."""
        without = {name for name, has in (("language", self._has_language), ("pretrain", self._env == BASE)) if not has}
        chosen = [name for name in names if name in pipelines and name not in without]
        up = Path(*[".."] * len(file.parent.parts))
        saved = {name for stage in chosen for name in self._nodes(stage).all_outputs()}
        artifacts = {
            name: {"path": (up / self._path(name)).as_posix(), "type": "model", "desc": text}
            for name, text in ARTIFACTS.items()
            if name in saved
        }
        return {"stages": {name: self._stage(name, up) for name in chosen}, "artifacts": artifacts}

    def _stage(self, name: str, up: Path) -> dict[str, Any]:
        nodes = self._nodes(name)
        text = "the validated settings that other stages read" if name == "settings" else _describe(name)
        stage: dict[str, Any] = {"desc": text}
        if up.parts:
            stage["wdir"] = up.as_posix()
        more = "" if set(nodes.nodes) <= set(pipelines["__default__"].nodes) else f" --pipelines {name}"
        stage["cmd"] = f"kedro run --env {self._env}{more} --tags {name}"
        if name == "pretrain":  # its output is part of the repository
            stage["frozen"] = True
        stage["deps"] = self._settings_deps() if name == "settings" else self._deps(name, nodes)
        blocks = sorted(entry.removeprefix("params:") for entry in nodes.inputs() if entry.startswith("params:"))
        if blocks:
            stage["params"] = [{self._path("settings"): blocks}]
        if name == "baselines":  # DVC orders unrelated stages at random; this value equals one that it reads already
            stage["params"].append({f"{self._path('checkpoint')}/configuration.json": ["backbone.path"]})
        return stage | self._outputs(nodes)

    def _deps(self, name: str, nodes: Pipeline) -> list[str]:
        """Return the artifacts, inputs and code that a stage reads."""
        language = set() if self._has_language else {"language_rows"}
        deps = {self._path(dataset) for dataset in self._saved(nodes.inputs() - language)}
        if name == "preprocess":
            deps.update(self._rows)
        code = self._imports.list_code(f"pipelines.{name}")
        folder = f"{PACKAGES['hyperformer'].as_posix()}/backbones"
        loads_backbone = any(Path(path).is_relative_to(folder) for path in code)
        if self._backbone and loads_backbone and "pretrained_backbone" not in nodes.all_outputs():
            deps.add(self._backbone)  # a checkpoint holds the backbone's name, not the backbone
        return [*sorted(deps), *code, LOCKED_PACKAGES]

    def _settings_deps(self) -> list[str]:
        """Return all configuration and code, so that the stage also notices a dvc.yaml that is out of date."""
        patterns = [pattern for kind in ("parameters", "catalog") for pattern in self._loader.config_patterns[kind]]
        folders = {CONF / BASE, CONF / self._env}
        files = {file for folder in folders for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
        package = PACKAGES["pipelines"]
        code = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
        return [*sorted(map(str, [*files, *code, PACKAGES["hyperformer"]])), LOCKED_PACKAGES]

    def _outputs(self, nodes: Pipeline) -> dict[str, list[Any]]:
        """Return the outputs of a stage, by the command of DVC that shows them.

        DVC deletes outputs that are not persisted before it runs a command, which may then be refused.
        """
        keep = {"persist": True}
        parts: dict[str, list[Any]] = {"outs": [], "metrics": [], "plots": []}
        for name in self._saved(nodes.all_outputs()):
            part = "metrics" if name in METRICS else "plots" if name in PLOTS else "outs"
            options = keep | PLOTS.get(name, {}) | ({"cache": False} if name in UNCACHED else {})
            parts[part].append({self._path(name): options})
        if "curves" in nodes.inputs():  # a node writes them while it runs
            curves = self._path("curves")
            parts["metrics"].append({f"{curves}/metrics.json": keep})
            parts["plots"].append({f"{curves}/plots": keep | {"x": "step"}})
        return {part: entries for part, entries in parts.items() if entries}

    def _saved(self, names: Iterable[str]) -> list[str]:
        """Return the datasets that are files or folders which no node changes while it runs, sorted."""
        datasets = {name: self._catalog[name] for name in names if name in self._catalog}
        return sorted(
            name for name, data in datasets.items() if get_path(data) and not isinstance(data, WorkingFolderDataset)
        )

    def _path(self, dataset: str) -> str:
        path = get_path(self._catalog[dataset])
        if path is None:
            raise HyperFormerError(f"{dataset} has no path in the catalog; expected `filepath` in its entry. Add it.")
        return path

    @staticmethod
    def _nodes(name: str) -> Pipeline:
        return pipelines[name].only_nodes_with_tags(name)


def _describe(name: str) -> str:
    """Return what a pipeline makes, from the first line of its module's docstring."""
    first = (sys.modules[f"pipelines.{name}"].__doc__ or "").partition("\n")[0]
    return first.partition(": ")[2].rstrip(".")
