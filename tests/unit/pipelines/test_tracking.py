"""What a run tells MLflow, where kedro-mlflow has begun a run of it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from kedro.io import DataCatalog

from pipelines.tracking import Tracked


class Recorder:
    """Stands where mlflow would, and keeps what it is told."""

    def __init__(self, running: bool) -> None:
        self.running, self.params, self.metrics, self.artifacts = running, {}, {}, []

    def active_run(self):
        return object() if self.running else None

    def log_params(self, params):
        self.params |= params

    def log_metrics(self, metrics, step=None):
        self.metrics |= {(name, step): value for name, value in metrics.items()}

    def log_artifact(self, place):
        self.artifacts.append((place, None))

    def log_artifacts(self, place, name):
        self.artifacts.append((place, name))


@pytest.fixture
def hooks():
    found = Tracked()
    parameters = {"seed": 3, "training": {"steps": 5, "mix": {"a b": 1}}, "unread": {"x": 1}}
    found.after_context_created(SimpleNamespace(config_loader={"parameters": parameters}))
    return found


def told(hooks, recorder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", recorder)
    catalog = DataCatalog.from_config({
        "figures": {"type": "pipelines.datasets.FiguresDataset", "filepath": "data/figures"},
        "report": {"type": "text.TextDataset", "filepath": "data/report.html"},
    })  # fmt: skip
    flow = SimpleNamespace(inputs=lambda: {"params:seed", "params:training", "rows"})
    hooks.before_pipeline_run(flow, catalog)
    hooks.after_dataset_saved("metrics", {"test": {"odd (1)": {"f1": 50}, "mean": {"mean": 2.5}}})
    hooks.after_dataset_saved("history", [{"step": 10, "mean": 1.0}, {"step": 20, "mean": 2.0}])
    hooks.after_dataset_saved("report", "<html>")
    hooks.after_dataset_saved("figures", None)
    hooks.after_dataset_saved("rows", None)
    return recorder


def test_settings_metrics_curves_and_pages_are_told(hooks, monkeypatch):
    found = told(hooks, Recorder(running=True), monkeypatch)
    assert found.params == {"seed": 3, "training.steps": 5, "training.mix.a b": 1}
    assert found.metrics == {
        ("test.odd _1_.f1", None): 50, ("test.mean.mean", None): 2.5, ("curve.mean", 10): 1.0, ("curve.mean", 20): 2.0,
    }  # fmt: skip
    assert [(place.rpartition("data/")[2], name) for place, name in found.artifacts] == [
        ("report.html", None), ("figures", "figures"),
    ]  # fmt: skip


def test_without_a_run_of_mlflow_nothing_is_told(hooks, monkeypatch):
    found = told(hooks, Recorder(running=False), monkeypatch)
    assert not found.params
    assert not found.metrics
    assert not found.artifacts
    told(hooks, None, monkeypatch)  # nor is there any without mlflow
