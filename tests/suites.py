"""Fixtures of a toy comparison of methods, and of a toy transfer of the trained models."""

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
    """Redirect results, working files and tables to a temporary folder."""
    from experiments import cells, tables

    monkeypatch.setattr(cells, "CELLS", tmp_path / "cells")
    monkeypatch.setattr(cells, "WORK", tmp_path / "work")
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
