"""Toy rows, tasks and settings, and a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
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


def run_python(
    code: str, *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


# --- methods


def all_sites(encoder: int, decoder: int) -> list[Site]:
    return [
        Site(stack, layer, position)
        for stack, layers in (("encoder", encoder), ("decoder", decoder))
        for layer in range(layers)
        for position in (0, 1)
    ]


HYPERNETWORK_SIZES: dict[str, Any] = {"task_embedding": 6, "projector": {"hidden": 10, "projected": 8}}
PAPER: dict[str, Any] = {"task_embedding": 64, "projector": {"hidden": 128, "projected": 64}}
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


AUDIT = """
import atexit, json, os, sys
opened, unpickled = set(), set()
def heard(event, given):
    if event == "open" and isinstance(given[0], (str, bytes, os.PathLike)):
        writes = any(letter in str(given[1]) for letter in "wax+") or bool((given[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        opened.add((os.path.abspath(os.fsdecode(given[0])), writes))
    elif event == "pickle.find_class":
        unpickled.add(".".join(map(str, given)))
sys.addaudithook(heard)
def told():
    with open(f"{os.environ['AUDIT_FOLDER']}/{os.getpid()}.json", "w") as file:
        json.dump({"opened": sorted(opened), "unpickled": sorted(unpickled)}, file)
atexit.register(told)
"""


def audited(folder: Path) -> dict[str, str]:
    """The environment in which a Python writes into a folder what files it opened and what it unpickled, at its end."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(AUDIT)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return {"AUDIT_FOLDER": str(folder), "PYTHONPATH": path}


def kedro(tree: Path, *words: str, env: str = "test", **more: str) -> subprocess.CompletedProcess[str]:
    """A run of Kedro in a copy of the project, as at the shell, with more in its environment."""
    environment = {**os.environ, "DO_NOT_TRACK": "1", "KEDRO_DISABLE_TELEMETRY": "1", **more}
    command = [sys.executable, "-m", "kedro", "run", *(["--env", env] if env else []), *words]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=280, check=False)
