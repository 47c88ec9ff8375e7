"""Settings, metrics, curves and pages of a run for MLflow, where kedro-mlflow has begun one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kedro.framework.hooks import hook_impl

SCORED, SHOWN = ("metrics", "parameter_counts"), ("results", "report", "figures")


class Tracked:
    """Adds to the run of MLflow that kedro-mlflow began what its own hooks leave out, or keep as one long text."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        self._settings = context.config_loader

    @hook_impl(trylast=True)  # after kedro-mlflow's, which begins the run
    def before_pipeline_run(self, pipeline: Any, catalog: Any) -> None:
        self._catalog = catalog
        mlflow = _running()
        if mlflow is not None:
            read = {name.removeprefix("params:") for name in pipeline.inputs()}
            blocks = {name: block for name, block in self._settings["parameters"].items() if name in read}
            mlflow.log_params(dict(_flat(blocks)))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        mlflow = _running()
        if mlflow is None:
            return
        if dataset_name in SCORED:
            mlflow.log_metrics(dict(_flat(data)))
        elif dataset_name == "history":
            for line in data:
                values = {f"curve.{_name(name)}": value for name, value in line.items() if name != "step"}
                mlflow.log_metrics(values, step=int(line["step"]))
        elif dataset_name in SHOWN:
            place = self._catalog.get(dataset_name)._describe()["filepath"]
            if dataset_name == "figures":
                mlflow.log_artifacts(str(place), dataset_name)
            else:
                mlflow.log_artifact(str(place))


def _running() -> Any:
    """MLflow, where it has a run; None elsewhere. kedro-mlflow has imported it, where it is installed."""
    mlflow = sys.modules.get("mlflow")
    return mlflow if mlflow is not None and mlflow.active_run() is not None else None


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A tree's leaves by their dotted names."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{_name(str(key))}.")
        else:
            yield f"{above}{_name(str(key))}", value


def _name(text: str) -> str:
    """A text in the letters that MLflow takes for a name."""
    return re.sub(r"[^\w\-./ ]", "_", text)
