"""A toy comparison of methods, and a toy transfer of what it trains."""

from __future__ import annotations

import pytest

OURS = "hyperformer_plus_plus"
COMPARED = {"environment": "test", "contenders": {OURS: {"method": OURS}}, "rates": [1e-3, 1e-2], "seeds": [0, 1]}
TRANSFERRED = {
    "environment": "transfer",
    "comparison": "toy",
    "tasks": ["reviews"],
    "contenders": {"ours": {"trained": OURS}},
    "samples": [4, 8],
    "seeds": [0, 1],
    "test_rows": 10,
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Cells and what is on the way to them, in a folder of the test's."""
    from experiments import store, tables

    monkeypatch.setattr(store, "CELLS", tmp_path / "runs")
    monkeypatch.setattr(store, "WORK", tmp_path / "work")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.md")
    monkeypatch.setattr(tables, "FIGURES", tmp_path / "figures")
    return tmp_path


@pytest.fixture
def suite(backbone_folder):
    from experiments.plan import ComparisonSuite

    changes = {"backbone.path": str(backbone_folder), "training.steps": 2, "training.evaluate_every": 2}
    rows = {"embedded.train": 20, "embedded.validation": 10, "embedded.test": 10}
    return ComparisonSuite(**COMPARED, test_rows=10, changes=changes | rows)


@pytest.fixture
def few(backbone_folder):
    from experiments.plan import TransferSuite

    rows = {"embedded.train": 20, "embedded.validation": 10, "embedded.test": 10, "transfer.steps": 2}
    return TransferSuite(**TRANSFERRED, changes=rows)
