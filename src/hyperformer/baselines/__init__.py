"""Baselines to compare a trained model with: simple models on words, on overlap, and on frozen embeddings."""

from __future__ import annotations

from hyperformer.baselines.all_tasks import MAX_VALIDATION_ROWS, evaluate_all_baselines, evaluate_cached_baselines
from hyperformer.baselines.models import evaluate_baselines, evaluate_majority

__all__ = [
    "MAX_VALIDATION_ROWS",
    "evaluate_all_baselines",
    "evaluate_baselines",
    "evaluate_cached_baselines",
    "evaluate_majority",
]
