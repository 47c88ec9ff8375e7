"""Train and export from Python: the steps of the pipelines, in one folder and without Kedro."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import replace_folder, write_text
from hyperformer.data.sources import check_sources
from hyperformer.data.splits import prepare
from hyperformer.data.storage import Writer, write_rows
from hyperformer.evaluation import evaluate_all
from hyperformer.export import check_targets
from hyperformer.export.bundle import export
from hyperformer.model.inference import move_to_gpu
from hyperformer.model.task_models import TaskModels
from hyperformer.preflight.model import check_model
from hyperformer.preflight.run import check_label_scoring
from hyperformer.preflight.settings import check_blocks
from hyperformer.runtime import Bundles
from hyperformer.settings import EvaluationSettings, ExportSettings, RunSettings
from hyperformer.tasks import Task, make_tasks
from hyperformer.training import encode, remove_states
from hyperformer.training import train as train_models
from hyperformer.training.states import lock_states

METHOD = {
    "reduction_factor": 16,
    "adapter_init": "identity",
    "task_embedding_dim": 64,
    "projector": {"hidden_dim": 128, "output_dim": 64},
}
DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "backbone": {"max_source_tokens": 128},
    "data": {"source": "embedded"},
    "method": "hyperformer_plus_plus",
    "methods": {"hyperformer_plus_plus": METHOD},
    "training": {
        "steps": 500,
        "batch_size": 32,
        "learning_rate": 3e-4,
        "warmup_steps": 50,
        "temperature": 10,
        "evaluate_every": 50,
        "validation_rows": 250,
    },
    "evaluation": {"batch_size": 64},
    "export": {"opset": 18, "tolerance": 1e-4},
}
"""Settings of `train` that its arguments do not set."""
METRICS = "metrics.json"


def train(
    folder: str | Path, tasks: Mapping[str, Any], backbone: str | Mapping[str, Any], **settings: Any
) -> TaskModels:
    """Train a method on tasks, evaluate it, and write rows, checkpoint and metrics into a folder.

    An interrupted run of the same arguments, rows and code is resumed. With `training.processes` above 1, the calling
    script must not run at import: put the call under `if __name__ == "__main__":`.

    Args:
        folder: the folder to write `rows`, `tokens`, `checkpoint` and `metrics.json` into.
        tasks: settings of each task, as in `parameters_tasks.yml`; `source.path` is where its rows are.
        backbone: path or Hub name of the backbone, or its settings.
        **settings: other settings as in `parameters.yml`: `seed`, `data`, `method`, and the blocks `methods`,
            `training`, `evaluation` and `export`. A setting of a block replaces the one in `DEFAULTS`.

    Returns:
        The trained models by task.

    Raises:
        HyperFormerError: a setting or row is invalid, a source is missing, or the loss is no longer finite.
    """
    folder = Path(folder)
    chosen = {"tasks": dict(tasks), "backbone": {"path": backbone} if isinstance(backbone, str) else backbone}
    blocks = check_blocks(_merge(DEFAULTS, {**chosen, **settings}), RunSettings)
    by_name = make_tasks(blocks.tasks)
    check_targets(by_name)
    check_label_scoring(blocks.evaluation, by_name)
    check_sources(by_name, blocks.data)
    check_model(blocks)
    with lock_states(folder / ".run"):
        return _train(folder, blocks, by_name)


def _train(folder: Path, blocks: RunSettings, by_name: Mapping[str, Task]) -> TaskModels:
    (folder / METRICS).unlink(missing_ok=True)
    rows, _ = prepare(by_name, blocks.data, folder / "embedded", blocks.seed)
    _write(folder / "rows", write_rows(rows))
    _write(folder / "tokens", encode(folder / "rows", blocks.tasks, blocks.backbone))
    checkpoint, _ = train_models(
        folder / "rows",
        folder / "tokens",
        blocks.tasks,
        blocks.backbone,
        blocks.chosen_method,
        blocks.training,
        blocks.seed,
        folder / ".states",
        threads=blocks.threads,
    )
    _write(folder / "checkpoint", checkpoint)
    models = move_to_gpu(TaskModels.from_pretrained(folder / "checkpoint"))
    metrics, _ = evaluate_all(partial(models.answer, settings=blocks.evaluation), by_name, folder / "rows")
    saved = {name: getattr(blocks, name).model_dump(mode="json") for name in ("evaluation", "export")}
    write_text(folder / METRICS, json.dumps({"metrics": metrics, **saved}, indent=1) + "\n")
    remove_states(folder / ".states")
    return models


def export_bundles(folder: str | Path) -> Bundles:
    """Export every task that `train` trained, and verify each graph against PyTorch on every validation row.

    Args:
        folder: the folder that `train` wrote; the bundles are written to `onnx/<task>/` in it.

    Returns:
        The bundles by task.

    Raises:
        HyperFormerError: the folder has no finished training, or an exported task differs from PyTorch.
    """
    folder = Path(folder)
    if not (folder / METRICS).is_file():
        raise HyperFormerError(f"{folder} has no {METRICS}; expected the folder of a finished training. Train first.")
    saved = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    evaluation, settings = EvaluationSettings(**saved["evaluation"]), ExportSettings(**saved["export"])
    _write(folder / "onnx", export(folder / "checkpoint", folder / "rows", saved["metrics"], settings, evaluation))
    return Bundles(folder / "onnx")


def _write(folder: Path, write: Writer) -> None:
    with replace_folder(folder) as new:
        write(new)


def _merge(defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return `chosen` completed by the defaults, setting by setting; `methods` and `tasks` are never merged."""
    merged = {**defaults, **chosen}
    for name, block in defaults.items():
        if isinstance(block, Mapping) and isinstance(chosen.get(name), Mapping) and name != "methods":
            merged[name] = {**block, **chosen[name]}
    training = chosen.get("training")
    if isinstance(training, Mapping) and "batch_tokens" in training and "batch_size" not in training:
        del merged["training"]["batch_size"]
    return merged
