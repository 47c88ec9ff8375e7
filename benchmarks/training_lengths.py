"""How to pad batches of GLUE's lengths: the engine's own way and others, as rows a second of HyperFormer++.

Batches are the engine's (`mixed_batches`); a window of them holds the same rows for every way.
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
from training_contenders import GLUE, SETTINGS, Contender, ours, stepping
from training_contenders import make as make_t5

ENGINE = "the engine's: large batches in parts by length"
WINDOW = 16  # batches; what length_grouped moves rows within
WINDOWS = 8  # then the first one comes again
ROWS = 2000  # of each task at most
SHIPPED = GLUE.parents[1] / "data" / "06_models" / "backbone"


def make(folder: Path, given: Any) -> None:
    """Writes the T5, token ids of some rows of every task, and how many rows each has."""
    from pyarrow import parquet
    from transformers import AutoTokenizer

    from hyperformer import tasks
    from hyperformer.config import Tasks
    from hyperformer.text import joined

    make_t5(folder)
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer if given.tokenizer.is_dir() else SHIPPED)
    print(f"tokens are those of {tokenizer.name_or_path}")
    draw = np.random.default_rng(0)
    found = {}
    for name, task in tasks.make(Tasks(yaml.safe_load((GLUE / "parameters_tasks.yml").read_text())["tasks"])).items():
        table = parquet.read_table(given.data / name / "train.parquet")
        picked = table.take(draw.choice(len(table), min(ROWS, len(table)), replace=False)).to_pylist()
        examples = [task.example(row) for row in picked]

        def ids(texts: list[str], longest: int) -> list[list[int]]:
            tokens = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=longest - 1)
            return [[*row, 1] for row in tokens["input_ids"]]  # </s>

        sources = ids([joined(e.source) for e in examples], SETTINGS["backbone"]["max_source_tokens"])
        targets = ids([e.answer for e in examples], SETTINGS["backbone"]["max_target_tokens"])
        found[name] = {"count": len(table), "rows": {"input_ids": sources, "labels": targets}}
    (folder / "rows.json").write_text(json.dumps(found))


def contenders(folder: Path, rows: int) -> dict[str, Contender]:
    """One model, whose steps take a batch padded in one way or another."""
    import pyarrow as pa
    from datasets import Dataset

    from hyperformer import model as engine
    from hyperformer.config import TrainingSettings
    from hyperformer.training.finetuning import mixed_batches
    from hyperformer.training.sampling import length_grouped, task_shares

    model = ours(folder, SETTINGS["training"]["label_smoothing"])
    found = json.loads((folder / "rows.json").read_text())
    settings = TrainingSettings(**SETTINGS["training"] | {"batch_size": rows, "steps": WINDOW * WINDOWS})
    counts = {name: one["count"] for name, one in found.items()}
    shares = task_shares(counts, dict.fromkeys(found, 1.0), settings.temperature)
    parts = {name: (Dataset(pa.table(one["rows"])), shares[name]) for name, one in found.items()}
    work = mixed_batches(model, parts, settings, seed=0)
    chosen = [work.rows(step) for step in range(settings.steps)]
    drawn = [work.collate(batch) for batch in chosen]
    longest = SETTINGS["backbone"]["max_source_tokens"]

    def padded(made: dict[str, Any]) -> dict[str, Any]:
        return made | {
            name: torch.nn.functional.pad(made[name], (0, longest - made[name].shape[1]))
            for name in ("input_ids", "attention_mask")
        }

    def regrouped(window: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of a window, those of like length in one batch."""
        order = length_grouped([len(row.tokens["input_ids"]) for row in window], rows, 0)
        return [work.collate([window[i] for i in order[at : at + rows]]) for at in range(0, len(order), rows)]

    def contender(batches: list[dict[str, Any]], parts: bool = False, full: bool = False) -> Contender:
        def loss(number: int, own: Callable[..., torch.Tensor] = model.backbone.loss) -> torch.Tensor:
            def given(batch: dict[str, Any], smoothing: float) -> torch.Tensor:
                return own(padded(batch) if full else batch, smoothing)

            with (
                mock.patch.object(engine, "LARGE", engine.LARGE if parts else 1 << 60),
                mock.patch.object(model.backbone, "loss", given),  # the engine would cut what is padded before it
            ):
                return model(**batches[number % len(batches)])["loss"]

        seen: list[int] = []

        def look(batch: dict[str, Any], _: float) -> torch.Tensor:
            seen.append(batch["input_ids"].numel())
            return torch.zeros(len(batch["labels"]))

        made = stepping(model, loss)
        with torch.no_grad():
            for number in range(len(batches)):
                loss(number, look)
        made.tokens = sum(seen) / rows / len(batches)
        return made

    windows = [sum(chosen[at : at + WINDOW], []) for at in range(0, len(chosen), WINDOW)]  # noqa: RUF017
    return {
        ENGINE: contender(drawn, parts=True),
        f"all to {longest}": contender(drawn, full=True),
        "to the batch's longest": contender(drawn),
        f"windows of {WINDOW} batches sorted by length": contender([one for w in windows for one in regrouped(w)]),
    }


def table(runs: list[dict[str, Any]], rows: int, _: Any = None) -> str:
    """Rows a second over whole windows, the median over processes, and how many times the engine's that is."""
    lines = ["| padding | tokens a row | rows/s | times |", "| --- | --- | --- | --- |"]
    speeds = {name: [rows / np.mean(run[name]["seconds"]) for run in runs] for name in runs[0]}
    for name, found in speeds.items():
        ratio = np.median([a / b for a, b in zip(found, speeds[ENGINE], strict=True)])
        lines.append(f"| {name} | {runs[0][name]['tokens']:.1f} | {np.median(found):.1f} | {ratio:.2f} |")
    return "\n".join(lines)
