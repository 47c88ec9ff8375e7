"""Toy rows, tasks, settings and methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperformer.config import Methods, MethodSettings
from hyperformer.types import Site

if TYPE_CHECKING:
    from hyperformer.methods import Method

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


def export_shared_base(checkpoint: Path, rows: Path, settings: Any, folder: Path) -> None:
    """Exports a checkpoint's tasks on one base, after evaluating it."""
    from hyperformer import evaluation
    from hyperformer.export.bundle import export_shared_base as export
    from hyperformer.model import SCORED, MultiTaskModel

    model = MultiTaskModel.from_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, rows)
    folder.mkdir(exist_ok=True)
    export(checkpoint, rows, metrics, settings, SCORED)(folder)


def no_dropout(model: Any) -> None:
    """Turns every dropout of a model off; T5's attention keeps its own as a number."""
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        if type(module).__name__ == "Dropout":
            module.p = 0.0


# --- methods


def all_sites(encoder: int, decoder: int) -> list[Site]:
    return [
        Site(stack, layer, position)
        for stack, layers in (("encoder", encoder), ("decoder", decoder))
        for layer in range(layers)
        for position in (0, 1)
    ]


HYPERNETWORK_SIZES: dict[str, Any] = {"task_embedding_dim": 6, "projector": {"hidden_dim": 10, "output_dim": 8}}
PAPER: dict[str, Any] = {"task_embedding_dim": 64, "projector": {"hidden_dim": 128, "output_dim": 64}}
"""The sizes of the paper's hypernetworks."""


def method_settings(name: str, **changes: Any) -> MethodSettings:
    sizes: dict[str, Any] = {} if name.startswith("fine_tuning") else {"reduction_factor": 4}
    sizes |= HYPERNETWORK_SIZES if name.startswith("hyperformer") else {}
    return Methods.model_validate({name: {**sizes, **changes}}).named(name)


def a_method(name: str, tasks: int = 3, encoder: int = 3, decoder: int = 2, width: int = 16, **changes: Any) -> Method:
    import torch

    from hyperformer import methods

    torch.manual_seed(0)
    sites = all_sites(encoder, decoder)
    return methods.make(method_settings(name, **changes), [f"task{i}" for i in range(tasks)], sites, width)


def loud(method: Method) -> Method:
    """Weights of size 1, so that every input matters."""
    import torch

    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.5)
    return method
