"""Toy rows, tasks, settings and methods for tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperformer.core.types import Site
from hyperformer.settings import Methods, MethodSettings

if TYPE_CHECKING:
    from torch import Tensor

    from hyperformer.methods.base import Method
    from hyperformer.tasks import Task

GOOD = "wonderful lovely bright clever charming honest".split()
BAD = "terrible dull ugly clumsy boring wicked".split()
NOUNS = "film book song story play garden".split()
FILLERS = ["", " today", " on the whole", " although nobody in the village had really expected it at all"]


@dataclass
class Batch:
    """Rows of any mix of tasks: `task_ids` [B] and the backbone's input tensors by name."""

    task_ids: Tensor
    tensors: dict[str, Tensor]


def toy_sentences() -> list[dict[str, Any]]:
    """Return sentences of several lengths, with a label that depends on their adjective."""
    rows = []
    for i, noun in enumerate(NOUNS):
        for j in range(6):
            for label, adjectives in ((1, GOOD), (0, BAD)):
                rows.append(
                    {"sentence": f"the {noun} is {adjectives[j]}{FILLERS[(i + j) % len(FILLERS)]}", "label": label}
                )
    return rows


def toy_pairs() -> list[dict[str, Any]]:
    """Return pairs of sentences, with a score that counts what they have in common, from 1 to 3."""
    rows = []
    for i, noun in enumerate(NOUNS):
        for j in range(4):
            other = NOUNS[(i + j) % len(NOUNS)]
            first, second = GOOD[j], GOOD[(j * 2) % len(GOOD)]
            score = float(noun == other) + float(first == second) + 1.0
            rows.append({"a": f"the {noun} is {first}", "b": f"a {other} was {second}", "score": score})
    return rows


def task_settings() -> dict[str, Any]:
    """Return the parameter tree of two classification tasks and a regression task."""
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


def make_pair_task(**changes: Any) -> Task:
    """Return a task of two text columns; classification, unless `kind` changes it."""
    from hyperformer.settings import Tasks
    from hyperformer.tasks import make_tasks

    settings = {
        "text": "first: {first} second: {second}",
        "kind": "classification",
        "label_column": "label",
        "metrics": ["accuracy"],
        **({} if "kind" in changes else {"labels": {0: "no", 1: "yes"}}),
        **changes,
    }
    return make_tasks(Tasks.model_validate({"t": settings}))["t"]


def train_settings(**changes: Any) -> Any:
    """Return the settings of a training run of a few steps."""
    from hyperformer.settings import TrainingSettings

    defaults = {
        "steps": 8,
        "batch_size": 6,
        "learning_rate": 1e-2,
        "warmup_steps": 1,
        "precision": "fp32",
        "temperature": 10,
        "evaluate_every": 2,
        "validation_rows": 8,
    }
    return TrainingSettings(**{**defaults, **changes})


def make_baselines(tasks: Iterable[str], mean: float = -100.0) -> dict[str, Any]:
    """Return baselines of each task whose only figure is the mean metric; no model is below the default."""
    scores = {task: {"majority": {"mean": mean}} for task in tasks}
    return {"validation": scores, "test": scores, "notes": {}}


def export_shared_base(checkpoint: Path, rows: Path, settings: Any, folder: Path) -> None:
    """Evaluate a checkpoint and export its tasks on a shared base."""
    from hyperformer import evaluation
    from hyperformer.export.bundle import export_shared_base as export
    from hyperformer.model.multi_task import DEFAULT_EVALUATION
    from hyperformer.model.task_models import TaskModels

    model = TaskModels.from_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, rows)
    folder.mkdir(exist_ok=True)
    export(checkpoint, rows, metrics, make_baselines(model.tasks), settings, DEFAULT_EVALUATION)(folder)


def disable_dropout(model: Any) -> None:
    """Turn off all dropout of a model, also that of T5's attention, which is a number."""
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        if type(module).__name__ == "Dropout":
            module.p = 0.0


# --- methods


def make_sites(encoder: int, decoder: int) -> list[Site]:
    return [
        Site(stack, layer, position)
        for stack, layers in (("encoder", encoder), ("decoder", decoder))
        for layer in range(layers)
        for position in (0, 1)
    ]


HYPERNETWORK_SIZES: dict[str, Any] = {"task_embedding_dim": 6, "projector": {"hidden_dim": 10, "output_dim": 8}}
PAPER: dict[str, Any] = {"task_embedding_dim": 64, "projector": {"hidden_dim": 128, "output_dim": 64}}
"""Sizes of the hypernetworks in the paper."""


def method_settings(name: str, **changes: Any) -> MethodSettings:
    sizes: dict[str, Any] = {} if name.startswith("fine_tuning") else {"reduction_factor": 4}
    sizes |= HYPERNETWORK_SIZES if name.startswith("hyperformer") else {}
    return Methods.model_validate({name: {**sizes, **changes}}).get_method(name)


def make_method(
    name: str, tasks: int = 3, encoder: int = 3, decoder: int = 2, width: int = 16, **changes: Any
) -> Method:
    import torch

    from hyperformer import methods

    torch.manual_seed(0)
    sites = make_sites(encoder, decoder)
    return methods.make_method(method_settings(name, **changes), [f"task{i}" for i in range(tasks)], sites, width)


def enlarge_weights(method: Method) -> Method:
    """Set large random weights, so that every input affects the output."""
    import torch

    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.5)
    return method
