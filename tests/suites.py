"""Fixtures of a toy comparison of methods, and of a toy transfer of the trained models."""

from __future__ import annotations

import pytest

OURS = "hyperformer_plus_plus"
COMPARISON = {
    "environment": "test",
    "configurations": {OURS: {"method": OURS}},
    "learning_rates": [1e-3, 1e-2],
    "seeds": [0, 1],
}
TRANSFER = {
    "environment": "transfer",
    "comparison": "toy",
    "tasks": ["reviews"],
    "configurations": {"ours": {"model": OURS}},
    "samples": [4, 8],
    "seeds": [0, 1],
    "test_rows": 10,
}


@pytest.fixture
def experiment_folder(tmp_path, monkeypatch):
    """Redirect runs, intermediate files and documents to a temporary folder, and return it."""
    from experiments import store, tables

    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(store, "WORK", tmp_path / "work")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.md")
    monkeypatch.setattr(tables, "FIGURES", tmp_path / "figures")
    return tmp_path


@pytest.fixture
def suite(backbone_folder):
    from experiments.plan import ComparisonSuite

    changes = {"backbone.path": str(backbone_folder), "training.steps": 2, "training.evaluate_every": 2}
    rows = {"embedded.train": 20, "embedded.validation": 10, "embedded.test": 10}
    return ComparisonSuite(**COMPARISON, test_rows=10, changes=changes | rows)


@pytest.fixture
def transfer_suite(backbone_folder):
    from experiments.plan import TransferSuite

    changes = {"embedded.train": 20, "embedded.validation": 10, "embedded.test": 10, "transfer.steps": 2}
    return TransferSuite(**TRANSFER, changes=changes)
