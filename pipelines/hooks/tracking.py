"""Logging of settings, metrics, curves and reports to MLflow, if kedro-mlflow has started a run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from pipelines.datasets import get_path

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

METRICS = ("metrics", "parameter_counts")
"""Datasets whose values are logged as metrics."""
ARTIFACTS = ("results", "report", "figures")
"""Datasets whose files are logged as artifacts."""


class MLflowLogger:
    """Hooks that log to the MLflow run what the hooks of kedro-mlflow omit or log as one long text."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the configuration loader for later hooks."""
        self._settings = context.config_loader

    @hook_impl(trylast=True)  # after the hook of kedro-mlflow, which starts the MLflow run
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log the settings that the pipeline reads, if an MLflow run is active."""
        self._catalog = catalog
        mlflow = _active_mlflow()
        if mlflow is not None:
            read = {name.removeprefix("params:") for name in pipeline.inputs()}
            blocks = {name: block for name, block in self._settings["parameters"].items() if name in read}
            mlflow.log_params(dict(_flatten(blocks)))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log a dataset that has metrics, curves or reports, if an MLflow run is active."""
        mlflow = _active_mlflow()
        if mlflow is None:
            return
        if dataset_name in METRICS:
            mlflow.log_metrics(dict(_flatten(data)))
        elif dataset_name == "history":
            for line in data:
                values = {name: value for name, value in line.items() if name != "step"}
                mlflow.log_metrics(dict(_flatten(values, "curve.")), step=int(line["step"]))
        elif dataset_name in ARTIFACTS:
            path = get_path(self._catalog[dataset_name])
            if dataset_name == "figures":
                mlflow.log_artifacts(path, dataset_name)
            else:
                mlflow.log_artifact(path)


def _active_mlflow() -> Any:
    """Return the module `mlflow` if it has an active run, else None; kedro-mlflow has imported it if installed."""
    mlflow = sys.modules.get("mlflow")
    return mlflow if mlflow is not None and mlflow.active_run() is not None else None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each entry of nested dictionaries."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{_clean_name(str(key))}.")
        else:
            yield f"{prefix}{_clean_name(str(key))}", value


def _clean_name(text: str) -> str:
    """Replace each character that MLflow does not allow in names by its code, so that names remain distinct."""
    return re.sub(r"[^\w\-. ]", lambda character: f"_{ord(character[0]):x}_", text)
