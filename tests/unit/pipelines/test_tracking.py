"""Logging to MLflow, if kedro-mlflow has started a run."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from kedro.io import DataCatalog

from pipelines.hooks import MLflowLogger


class Recorder:
    """A stand-in for the module mlflow that records what is logged."""

    def __init__(self, running: bool) -> None:
        self.running, self.params, self.metrics, self.artifacts = running, {}, {}, []

    def active_run(self):
        return object() if self.running else None

    def log_params(self, params):
        self.params |= params

    def log_metrics(self, metrics, step=None):
        self.metrics |= {(name, step): value for name, value in metrics.items()}

    def log_artifact(self, path):
        self.artifacts.append((path, None))

    def log_artifacts(self, path, name):
        self.artifacts.append((path, name))


@pytest.fixture
def hooks():
    tracked = MLflowLogger()
    parameters = {"seed": 3, "training": {"steps": 5, "mix": {"a b": 1}}, "unread": {"x": 1}}
    tracked.after_context_created(SimpleNamespace(config_loader={"parameters": parameters}))
    return tracked


def log_run(hooks, recorder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", recorder)
    catalog = DataCatalog.from_config({
        "figures": {"type": "pipelines.datasets.SVGFolderDataset", "filepath": "data/figures"},
        "report": {"type": "text.TextDataset", "filepath": "data/report.html"},
    })  # fmt: skip
    pipeline = SimpleNamespace(inputs=lambda: {"params:seed", "params:training", "rows"})
    hooks.before_pipeline_run(pipeline, catalog)
    hooks.after_dataset_saved("metrics", {"test": {"odd (1)": {"f1": 50}, "mean": {"mean": 2.5}}})
    hooks.after_dataset_saved("history", [{"step": 10, "mean": 1.0}, {"step": 20, "mean": 2.0}])
    hooks.after_dataset_saved("report", "<html>")
    hooks.after_dataset_saved("figures", None)
    hooks.after_dataset_saved("rows", None)
    return recorder


def test_settings_metrics_curves_and_reports_are_logged(hooks, monkeypatch):
    recorder = log_run(hooks, Recorder(running=True), monkeypatch)
    assert recorder.params == {"seed": 3, "training.steps": 5, "training.mix.a b": 1}
    assert recorder.metrics == {
        ("test.odd _28_1_29_.f1", None): 50, ("test.mean.mean", None): 2.5,
        ("curve.mean", 10): 1.0, ("curve.mean", 20): 2.0,
    }  # fmt: skip
    assert [(path.rpartition("data/")[2], name) for path, name in recorder.artifacts] == [
        ("report.html", None), ("figures", "figures"),
    ]  # fmt: skip


def test_without_an_mlflow_run_nothing_is_logged(hooks, monkeypatch):
    recorder = log_run(hooks, Recorder(running=False), monkeypatch)
    assert not recorder.params
    assert not recorder.metrics
    assert not recorder.artifacts
    log_run(hooks, None, monkeypatch)  # mlflow may also be missing
