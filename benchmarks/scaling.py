"""Scaling of training with the number of tasks, rows and processes.

    python benchmarks/scaling.py tasks        # 8, 64 and 512 tasks in one model: step time and parameters; t5-small
    python benchmarks/scaling.py rows         # 10⁴, 10⁵ and 10⁶ rows: memory and rows per second of each stage
    python benchmarks/scaling.py processes    # 1 and 2 processes: rows per second

`tasks` times the steps of all its models in one process, in random order. A step has 32 rows of random tasks with the
lengths of GLUE's rows; the models have t5-small's size and random weights. `rows` and `processes` use the shipped
backbone. `rows` runs each stage in a new process, and measures the peak of its private memory, `Anonymous` in
/proc/self/smaps_rollup: this excludes pages of mapped files, which the system can reclaim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import training_steps
from pyarrow import parquet
from torch import nn
from transformers import TrainerCallback

from hyperformer import tasks
from hyperformer.data.splits import prepare
from hyperformer.data.storage import write_rows
from hyperformer.data.tokens import read_tokens
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.settings import BackboneSettings, DataSettings, Methods, MethodSettings, Tasks, TrainingSettings
from hyperformer.training import encode
from hyperformer.training.distributed import get_rank, launch
from hyperformer.training.jobs import build_mixture_job
from hyperformer.training.trainer import run_loop

BACKBONE = BackboneSettings(
    path=str(Path(__file__).parents[1] / "data/06_models/backbone"), max_source_tokens=64, max_target_tokens=32
)
SIZES = {"task_embedding_dim": 64, "projector": {"hidden_dim": 128, "output_dim": 64}}
TASK = {
    "source": {"name": "mood"},
    "text": "sentence: {sentence}",
    "kind": "classification",
    "label_column": "label",
    "labels": {0: "0", 1: "1"},
    "metrics": ["accuracy"],
}
VOCABULARY = np.array(
    "the a one film book song story is was seems dull bright lovely clumsy quite rather very and but".split()
)


def method(reduction_factor: int = 8) -> MethodSettings:
    """Return the settings of HyperFormer++ with a reduction factor."""
    return Methods({"hyperformer_plus_plus": {"reduction_factor": reduction_factor, **SIZES}}).get_method(
        "hyperformer_plus_plus"
    )


def many_tasks(count: int) -> Tasks:
    """Return `count` tasks that differ only by name."""
    return Tasks({f"mood{number}": TASK for number in range(count)})


def settings(**changes: Any) -> TrainingSettings:
    """Return the training settings of this benchmark, with changes."""
    defaults: dict[str, Any] = {"steps": 120, "batch_size": 32, "learning_rate": 6e-4, "warmup_steps": 10}
    defaults |= {"precision": "fp32", "temperature": 10, "evaluate_every": 120, "validation_rows": 250}
    return TrainingSettings(**(defaults | changes))


# --- tasks


def compare_tasks(seconds: float) -> str:
    """Format step times and trainable parameters of models of 8, 64 and 512 tasks, timed in random order."""
    steps: dict[int, Callable[[int], Any]] = {}
    trainable: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as name:
        training_steps.write_inputs(Path(name), "t5-small")
        backbone = BACKBONE.model_copy(update={"path": name})
        for count in (8, 64, 512):
            torch.manual_seed(0)
            model = training_steps.copy_parameters(MultiTaskModel(backbone, method(32), many_tasks(count)))
            steps[count] = make_step(model, count)
            trainable[count] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    times: dict[int, list[float]] = {count: [] for count in steps}
    draw = np.random.default_rng(0)
    first_start, number = time.perf_counter(), 0
    while time.perf_counter() - first_start < seconds:
        for count in draw.permutation(list(steps)).tolist():
            start = time.perf_counter()
            steps[count](number)
            times[count].append(time.perf_counter() - start)
        number += 1
    medians = {count: statistics.median(values[2:]) for count, values in times.items()}
    lines = [
        "| tasks | step, ms | ratio to 8 tasks | trainable parameters | added per task |",
        "| --- " * 5 + "|",
    ]
    for count, median in medians.items():
        added = f"{(trainable[count] - trainable[8]) / (count - 8):.0f}" if count > 8 else ""
        lines.append(f"| {count} | {1000 * median:.1f} | {median / medians[8]:.2f} | {trainable[count]:,} | {added} |")
    return "\n".join(lines)


def make_step(model: nn.Module, count: int) -> Callable[[int], None]:
    """Return a function that runs a training step, given its number, on 32 rows of random tasks."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.0)

    def step(number: int) -> None:
        tensors, _ = training_steps.make_batch(number, mixed=True, is_t5=True)
        task_ids = torch.from_numpy(np.random.default_rng(number).integers(0, count, training_steps.BATCH))
        optimizer.zero_grad()
        model(task_ids, **tensors)["loss"].backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step


# --- rows


@contextmanager
def sample_peak_memory() -> Iterator[list[float]]:
    """Sample this process's private memory in the block; yield a list whose only entry is the peak in MB."""
    peak, done = [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            peak[0] = max(peak[0], sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def make_rows(folder: Path, count: int) -> None:
    """Write a task with `count` training rows, in chunks; all sentences differ.

    The validation and test splits have 1000 rows each.
    """
    draw = np.random.default_rng(0)
    for split, rows in (("train", count), ("validation", 1000), ("test", 1000)):
        schema = pa.schema([("sentence", pa.string()), ("label", pa.int64())])
        (folder / "mood").mkdir(parents=True, exist_ok=True)
        with parquet.ParquetWriter(folder / "mood" / f"{split}.parquet", schema) as file:
            for start in range(0, rows, 10_000):
                size = min(10_000, rows - start)
                sentences = VOCABULARY[draw.integers(0, len(VOCABULARY), (size, 12))]
                texts = [f"{split} {start + i} {' '.join(sentence)}" for i, sentence in enumerate(sentences)]
                file.write_batch(pa.record_batch([texts, draw.integers(0, 2, size)], schema=schema))


def run_stage(name: str, folder: Path) -> None:
    """Run one stage in this process; print the peak memory before and during it, and its seconds, as JSON."""
    task = Tasks({"mood": TASK})
    with sample_peak_memory() as before:
        time.sleep(0.2)
    start = time.perf_counter()
    with sample_peak_memory() as peak:
        if name == "preprocess":
            rows, _ = prepare(tasks.make_tasks(task), DataSettings(source=str(folder / "source")), Path(), 0)
            write_rows(rows)(make_folder(folder / "rows"))
        elif name == "encode":
            encode(folder / "rows", task, BACKBONE)(make_folder(folder / "tokens"))
        else:
            model = MultiTaskModel(BACKBONE, method(), task)
            work = build_mixture_job(model, {"mood": (read_tokens(folder / "tokens", "mood"), 1.0)}, settings(), 0)
            run_loop(work, settings(), 0, make_folder(folder / "state"))
    print(json.dumps({"idle": before[0], "peak": peak[0], "seconds": time.perf_counter() - start}))


def make_folder(folder: Path) -> Path:
    """Create a folder and return it."""
    folder.mkdir()
    return folder


def compare_rows() -> str:
    """Format memory and rows per second of each stage for 10⁴, 10⁵ and 10⁶ rows."""
    lines = [
        "| rows | stage | MB | ratio to 10⁴ rows | rows/s |",
        "| --- " * 5 + "|",
    ]
    first: dict[str, float] = {}
    for count in (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as name:
            make_rows(Path(name) / "source", count)
            for stage_name in ("preprocess", "encode", "train"):
                command = [sys.executable, __file__, "stage", "--stage", stage_name, "--folder", name]
                process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                figures = json.loads(process.stdout.splitlines()[-1])
                first.setdefault(stage_name, figures["peak"])
                speed = f"{(120 * 32 if stage_name == 'train' else count) / figures['seconds']:.0f}"
                ratio = figures["peak"] / first[stage_name]
                lines.append(f"| {count:,} | {stage_name} | {figures['peak']:.0f} | {ratio:.2f} | {speed} |")
                print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


# --- processes


@dataclass(frozen=True)
class FitArguments:
    """The arguments of `fit` in every process."""

    folder: Path
    training: TrainingSettings


class Timer(TrainerCallback):
    """A timer from the end of step 20 to the end of the last step; its attribute `seconds` is the result."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the timer after step 20, and stop it after the last step."""
        if state.global_step == 20:
            self.start = time.perf_counter()
        if state.global_step == state.max_steps:
            self.seconds = time.perf_counter() - self.start


def fit(arguments: FitArguments) -> None:
    """Train in one or several processes; the first process writes the timer's seconds to a file."""
    model, training = MultiTaskModel(BACKBONE, method(), Tasks({"mood": TASK})), arguments.training
    work = build_mixture_job(model, {"mood": (read_tokens(arguments.folder / "tokens", "mood"), 1.0)}, training, 0)
    timer = Timer()
    run_loop(work, training, 0, arguments.folder / f"state{training.processes}", [timer])
    if get_rank() == 0:
        (arguments.folder / "seconds").write_text(str(timer.seconds))


def compare_processes(batch_size: int) -> str:
    """Format the rows per second of one process and of two processes."""
    lines = ["| processes | threads each | rows/s | ratio to one |", "| --- " * 4 + "|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rows(folder / "source", 10_000)
        for stage_name in ("preprocess", "encode"):
            command = [sys.executable, __file__, "stage", "--stage", stage_name, "--folder", name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        speeds = []
        for processes in (1, 2):
            training = settings(processes=processes, batch_size=batch_size)
            launch(fit, FitArguments(folder, training), training, torch.get_num_threads())
            speeds.append(100 * batch_size / float((folder / "seconds").read_text()))
            threads = max(1, torch.get_num_threads() // processes)
            lines.append(f"| {processes} | {threads} | {speeds[-1]:.0f} | {speeds[-1] / speeds[0]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark that the command line names, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tasks", "rows", "processes", "stage"])
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the benchmark of tasks, in seconds")
    parser.add_argument(
        "--batch-size", type=int, default=64, help="number of rows in a batch, for the benchmark of processes"
    )
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "stage":
        run_stage(options.stage, options.folder)
    elif options.what == "tasks":
        print(compare_tasks(options.seconds))
    elif options.what == "rows":
        print(compare_rows())
    else:
        print(compare_processes(options.batch_size))


if __name__ == "__main__":
    main()
