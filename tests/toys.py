"""Toy rows, tasks and settings, and a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

GOOD = "wonderful lovely bright clever charming honest".split()
BAD = "terrible dull ugly clumsy boring wicked".split()
NOUNS = "film book song story play garden".split()
FILLERS = ["", " today", " on the whole", " although nobody in the village had really expected it at all"]


def toy_sentences() -> list[dict[str, Any]]:
    """Sentences of several lengths with a label that their adjective decides."""
    rows = []
    for i, noun in enumerate(NOUNS):
        for j in range(6):
            for label, words in ((1, GOOD), (0, BAD)):
                rows.append({"sentence": f"the {noun} is {words[j]}{FILLERS[(i + j) % len(FILLERS)]}", "label": label})
    return rows


def toy_pairs() -> list[dict[str, Any]]:
    """Pairs of sentences with a score: how many of three slots they share."""
    rows = []
    for i, noun in enumerate(NOUNS):
        for j in range(4):
            other = NOUNS[(i + j) % len(NOUNS)]
            first, second = GOOD[j], GOOD[(j * 2) % len(GOOD)]
            score = float(noun == other) + float(first == second) + 1.0
            rows.append({"a": f"the {noun} is {first}", "b": f"a {other} was {second}", "score": score})
    return rows


def task_settings() -> dict[str, Any]:
    """Toy tasks of every kind, as a parameter tree."""
    return {
        "mood": {
            "text": "sentence: {sentence}",
            "kind": "classification",
            "label_column": "label",
            "labels": {0: "negative", 1: "positive"},
            "metrics": ["accuracy"],
        },
        "mood3": {
            "text": "which mood: {sentence}",
            "kind": "classification",
            "label_column": "label",
            "labels": {0: "quite bad", 1: "good", 2: "neither"},
            "metrics": ["accuracy"],
        },
        "likeness": {
            "text": "a: {a} b: {b}",
            "kind": "regression",
            "label_column": "score",
            "minimum": 0,
            "maximum": 3,
            "step": 1,
            "metrics": ["pearson"],
        },
    }


def train_settings(**changes: Any) -> Any:
    """Settings of a run of a few steps."""
    from hyperformer.config import TrainingSettings

    given = {
        "steps": 8,
        "batch_size": 6,
        "learning_rate": 1e-2,
        "warmup_steps": 1,
        "precision": "fp32",
        "temperature": 10,
        "evaluate_every": 2,
        "validation_rows": 8,
    }
    return TrainingSettings(**{**given, **changes})


def run_python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
