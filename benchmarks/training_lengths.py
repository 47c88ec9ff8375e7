"""Compare the padding of our training loop with other ways to pad batches, on GLUE's rows.

Each way is measured in rows per second of HyperFormer++. The batches are those of our training loop
(`build_mixture_job`). One way sorts the rows of each window of batches by length; the window's rows stay the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from training_peers import GLUE, SETTINGS, TrainingStep, load_hyperformer, make_step
from training_peers import write_inputs as write_t5

ENGINE = "the engine's: large batches split by length"
WINDOW = 16  # number of batches within which rows are sorted by length
WINDOWS = 8  # number of windows, after which the first window is repeated
ROWS = 2000  # maximum number of rows per task
SHIPPED = GLUE.parents[1] / "data" / "06_models" / "backbone"


def write_inputs(folder: Path, options: Any) -> None:
    """Write the T5, the number of rows of every task, and the token ids of some of the rows.

    Args:
        folder: The folder to write to.
        options: The options of the command line, with `data` and `tokenizer`.
    """
    from pyarrow import parquet
    from transformers import AutoTokenizer

    from hyperformer import tasks
    from hyperformer.core.text import join_source
    from hyperformer.settings import Tasks

    write_t5(folder)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer if options.tokenizer.is_dir() else SHIPPED)
    print(f"tokenizer: {tokenizer.name_or_path}")
    draw = np.random.default_rng(0)
    tokenized = {}
    for name, task in tasks.make_tasks(
        Tasks(yaml.safe_load((GLUE / "parameters_tasks.yml").read_text())["tasks"])
    ).items():
        table = parquet.read_table(options.data / name / "train.parquet")
        picked = table.take(draw.choice(len(table), min(ROWS, len(table)), replace=False)).to_pylist()
        examples = [task.make_example(row) for row in picked]

        def ids(texts: list[str], longest: int) -> list[list[int]]:
            tokens = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=longest - 1)
            return [[*row, 1] for row in tokens["input_ids"]]  # </s>

        sources = ids([join_source(e.source) for e in examples], SETTINGS["backbone"]["max_source_tokens"])
        targets = ids([e.answer for e in examples], SETTINGS["backbone"]["max_target_tokens"])
        tokenized[name] = {"count": len(table), "rows": {"input_ids": sources, "labels": targets}}
    (folder / "rows.json").write_text(json.dumps(tokenized))


def make_steps(folder: Path, rows: int) -> dict[str, TrainingStep]:
    """Return training steps of one model, by the name of the way in which their batches are padded.

    Args:
        folder: The folder that `write_inputs` wrote.
        rows: Number of rows in a batch.
    """
    import pyarrow as pa
    from datasets import Dataset

    from hyperformer.model import multi_task as engine
    from hyperformer.settings import TrainingSettings
    from hyperformer.training.jobs import build_mixture_job
    from hyperformer.training.sampling import compute_task_shares, group_by_length

    model = load_hyperformer(folder, SETTINGS["training"]["label_smoothing"])
    tokenized = json.loads((folder / "rows.json").read_text())
    settings = TrainingSettings(**SETTINGS["training"] | {"batch_size": rows, "steps": WINDOW * WINDOWS})
    counts = {name: task["count"] for name, task in tokenized.items()}
    shares = compute_task_shares(counts, dict.fromkeys(tokenized, 1.0), settings.temperature)
    datasets = {name: (Dataset(pa.table(task["rows"])), shares[name]) for name, task in tokenized.items()}
    work = build_mixture_job(model, datasets, settings, seed=0)
    batch_rows = [work.rows(step) for step in range(settings.steps)]
    batches = [work.collate(chosen) for chosen in batch_rows]
    longest = SETTINGS["backbone"]["max_source_tokens"]

    def pad_fully(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {
            name: torch.nn.functional.pad(batch[name], (0, longest - batch[name].shape[1]))
            for name in ("input_ids", "attention_mask")
        }

    def group_window(window: Sequence[Any]) -> list[dict[str, Any]]:
        """Regroup the rows of a window into batches of rows of similar length."""
        order = group_by_length([len(row.tokens["input_ids"]) for row in window], rows, 0)
        return [work.collate([window[i] for i in order[at : at + rows]]) for at in range(0, len(order), rows)]

    def padded_step(batches: list[dict[str, Any]], split: bool = False, full: bool = False) -> TrainingStep:
        def loss(number: int, backbone_loss: Callable[..., torch.Tensor] = model.backbone.loss) -> torch.Tensor:
            def padded_loss(batch: dict[str, Any], smoothing: float) -> torch.Tensor:
                return backbone_loss(pad_fully(batch) if full else batch, smoothing)

            with (
                mock.patch.object(engine, "LARGE_BATCH_TOKENS", engine.LARGE_BATCH_TOKENS if split else 1 << 60),
                mock.patch.object(
                    model.backbone, "loss", padded_loss
                ),  # padding that is added earlier would be removed
            ):
                return model(**batches[number % len(batches)])["loss"]

        sizes: list[int] = []

        def record_size(batch: dict[str, Any], _: float) -> torch.Tensor:
            sizes.append(batch["input_ids"].numel())
            return torch.zeros(len(batch["labels"]))

        step = make_step(model, loss)
        with torch.no_grad():
            for number in range(len(batches)):
                loss(number, record_size)
        step.tokens = sum(sizes) / rows / len(batches)
        return step

    windows = [sum(batch_rows[at : at + WINDOW], []) for at in range(0, len(batch_rows), WINDOW)]  # noqa: RUF017
    grouped = [batch for window in windows for batch in group_window(window)]
    return {
        ENGINE: padded_step(batches, split=True),
        f"all to {longest}": padded_step(batches, full=True),
        "to the longest row of the batch": padded_step(batches),
        f"windows of {WINDOW} batches sorted by length": padded_step(grouped),
    }


def table(runs: list[dict[str, Any]], rows: int, _: Any = None) -> str:
    """Format rows per second as Markdown: medians over processes, and their ratio to our training loop.

    Args:
        runs: One entry per process: the seconds and sizes of each step, by name.
        rows: Number of rows in a batch.
    """
    lines = ["| padding | tokens per row | rows/s | ratio |", "| --- | --- | --- | --- |"]
    speeds = {name: [rows / np.mean(run[name]["seconds"]) for run in runs] for name in runs[0]}
    for name, values in speeds.items():
        ratio = np.median([a / b for a, b in zip(values, speeds[ENGINE], strict=True)])
        lines.append(f"| {name} | {runs[0][name]['tokens']:.1f} | {np.median(values):.1f} | {ratio:.2f} |")
    return "\n".join(lines)
