"""Train and export from Python: the steps of the pipelines, in one folder and without Kedro."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hyperformer.baselines import evaluate_all_baselines
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import replace_folder, write_text
from hyperformer.data.sources import check_sources
from hyperformer.data.splits import prepare
from hyperformer.data.storage import Writer, write_rows
from hyperformer.evaluation import evaluate_all
from hyperformer.export import check_targets
from hyperformer.export.bundle import export
from hyperformer.model.inference import make_embedder, move_to_gpu
from hyperformer.model.task_models import TaskModels
from hyperformer.preflight.export import check_label_scoring, check_openvino, check_task_names
from hyperformer.preflight.model import check_model
from hyperformer.preflight.settings import check_blocks
from hyperformer.runtime import Bundles
from hyperformer.settings import EvaluationSettings, ExportSettings, RunSettings
from hyperformer.settings.merge import merge_settings
from hyperformer.tasks import Task, make_tasks
from hyperformer.training import encode, remove_states
from hyperformer.training import train as train_models
from hyperformer.training.states import lock_states

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
        **settings: other settings as in `parameters.yml`: `seed`, `threads`, `data`, `preset`, `method`, and the blocks
            `methods`, `training`, `evaluation` and `export`. Each replaces the default of the library or of the
            backbone's preset (`hyperformer.settings.presets`), setting by setting.

    Returns:
        The trained models by task.

    Raises:
        HyperFormerError: a setting or row is invalid, a source is missing, or the loss is no longer finite.
    """
    folder = Path(folder)
    chosen = {"tasks": dict(tasks), "backbone": {"path": backbone} if isinstance(backbone, str) else backbone}
    tree, _ = merge_settings([], [{"arguments of train": {**chosen, **settings}}])
    blocks = check_blocks(tree, RunSettings)
    by_name = make_tasks(blocks.tasks)
    check_targets(by_name)
    check_label_scoring(blocks.evaluation, by_name)
    check_task_names(blocks.export, by_name)
    check_openvino(blocks.export)
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
    embed = make_embedder(blocks.backbone, blocks.evaluation.batch_size)
    baselines = evaluate_all_baselines(by_name, folder / "rows", embed, blocks.seed)
    saved = {name: getattr(blocks, name).model_dump(mode="json") for name in ("evaluation", "export")}
    write_text(folder / METRICS, json.dumps({"metrics": metrics, "baselines": baselines, **saved}, indent=1) + "\n")
    remove_states(folder / ".states")
    return models


def export_bundles(folder: str | Path) -> Bundles:
    """Export every task that `train` trained, and verify each graph against PyTorch on every validation row.

    Args:
        folder: the folder that `train` wrote; the bundles are written to `onnx/<task>/` in it.

    Returns:
        The bundles by task; a task that is not published raises an error when it is first used (`hyperformer.load`).

    Raises:
        HyperFormerError: the folder has no finished training, or an exported task differs from PyTorch.
    """
    folder = Path(folder)
    if not (folder / METRICS).is_file():
        raise HyperFormerError(f"{folder} has no {METRICS}; expected the folder of a finished training. Train first.")
    saved = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    if "baselines" not in saved:
        raise HyperFormerError(f"{folder / METRICS} has no baselines; expected them beside the metrics. Train again.")
    evaluation, settings = EvaluationSettings(**saved["evaluation"]), ExportSettings(**saved["export"])
    results = saved["metrics"], saved["baselines"]
    _write(folder / "onnx", export(folder / "checkpoint", folder / "rows", *results, settings, evaluation))
    return Bundles(folder / "onnx")


def _write(folder: Path, write: Writer) -> None:
    with replace_folder(folder) as new:
        write(new)
