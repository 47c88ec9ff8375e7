"""How training grows: with tasks, with rows, and with processes.

    python benchmarks/scaling.py tasks        # 8, 64 and 512 tasks in one model: time of a step, tensors kept; t5-small
    python benchmarks/scaling.py rows         # 10⁴, 10⁵ and 10⁶ rows: memory and rows a second, stage by stage
    python benchmarks/scaling.py processes    # 1 and 2 processes: rows a second

Tasks are timed on t5-small's sizes with random weights, in one process in random turns, 16 rows of 64 tokens of random
tasks. The others run on the shipped backbone, the default's; rows and processes take a fresh process each. Memory
is a process's own, `Anonymous` of /proc/self/smaps_rollup: pages of a mapped file, which the system takes back at need,
are not in it.
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
import training_contenders
from pyarrow import parquet
from transformers import TrainerCallback

from hyperformer import tasks
from hyperformer.config import BackboneSettings, DataSettings, Methods, MethodSettings, Tasks, TrainingSettings
from hyperformer.data import prepare, read_tokens, write_rows
from hyperformer.model import MultiTaskModel
from hyperformer.training import encode
from hyperformer.training.distributed import launch, rank
from hyperformer.training.engine import run_loop
from hyperformer.training.finetuning import mixed_batches

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
WORDS = np.array(
    "the a one film book song story is was seems dull bright lovely clumsy quite rather very and but".split()
)


def method(reduction_factor: int = 8) -> MethodSettings:
    return Methods(hyperformer_plus_plus={"reduction_factor": reduction_factor, **SIZES}).named("hyperformer_plus_plus")


def many_tasks(count: int) -> Tasks:
    return Tasks({f"mood{number}": TASK for number in range(count)})


def settings(**changes: Any) -> TrainingSettings:
    given: dict[str, Any] = {"steps": 120, "batch_size": 32, "learning_rate": 6e-4, "warmup_steps": 10}
    given |= {"precision": "fp32", "temperature": 10, "evaluate_every": 120, "validation_rows": 250}
    return TrainingSettings(**(given | changes))


# --- tasks


def by_tasks(seconds: float) -> str:
    """Step times of models of 8, 64 and 512 tasks, in random turns, and what they keep."""
    steps: dict[int, Callable[[int], Any]] = {}
    kept: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as name:
        training_contenders.make(Path(name))
        backbone = BACKBONE.model_copy(update={"path": f"{name}/t5"})
        for count in (8, 64, 512):
            torch.manual_seed(0)
            model = training_contenders.owned(MultiTaskModel(backbone, method(32), many_tasks(count)).train())
            made = training_contenders.stepping(model, loss_of(model, count))
            steps[count], kept[count] = made.step, made.trained
    times: dict[int, list[float]] = {count: [] for count in steps}
    draw = np.random.default_rng(0)
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for count in draw.permutation(list(steps)).tolist():
            start = time.perf_counter()
            steps[count](number)
            times[count].append(time.perf_counter() - start)
        number += 1
    medians = {count: statistics.median(found[2:]) for count, found in times.items()}
    lines = ["| tasks | step, ms | of 8 tasks | trained parameters | more than 8 tasks, a task |", "| --- " * 5 + "|"]
    for count, median in medians.items():
        more = f"{(kept[count] - kept[8]) / (count - 8):.0f}" if count > 8 else ""
        lines.append(f"| {count} | {1000 * median:.1f} | {median / medians[8]:.2f} | {kept[count]:,} | {more} |")
    return "\n".join(lines)


def loss_of(model: MultiTaskModel, count: int) -> Callable[[int], torch.Tensor]:
    """The loss of a step, on 16 rows of random tasks."""

    def loss(number: int) -> torch.Tensor:
        task_ids = torch.from_numpy(np.random.default_rng(number).integers(0, count, 16))
        return model(task_ids, **training_contenders.drawn(number, 16))["loss"]

    return loss


# --- rows


@contextmanager
def own_memory() -> Iterator[list[float]]:
    """The most memory of this process's own while what is inside runs, in MB, sampled."""
    peak, done = [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            peak[0] = max(peak[0], sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024)

    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def make_rows(folder: Path, count: int) -> None:
    """A task of `count` training rows of different sentences, in pieces."""
    draw = np.random.default_rng(0)
    for split, rows in (("train", count), ("validation", 1000), ("test", 1000)):
        schema = pa.schema([("sentence", pa.string()), ("label", pa.int64())])
        (folder / "mood").mkdir(parents=True, exist_ok=True)
        with parquet.ParquetWriter(folder / "mood" / f"{split}.parquet", schema) as file:
            for start in range(0, rows, 10_000):
                size = min(10_000, rows - start)
                words = WORDS[draw.integers(0, len(WORDS), (size, 12))]
                texts = [f"{split} {start + i} {' '.join(row)}" for i, row in enumerate(words)]
                file.write_batch(pa.record_batch([texts, draw.integers(0, 2, size)], schema=schema))


def stage(name: str, folder: Path) -> None:
    """Runs one stage here and prints its memory and time as JSON."""
    one = Tasks({"mood": TASK})
    with own_memory() as before:
        time.sleep(0.2)
    began = time.perf_counter()
    with own_memory() as peak:
        if name == "preprocess":
            rows, _ = prepare(tasks.make(one), DataSettings(source=str(folder / "source")), Path(), 0)
            write_rows(rows)(made(folder / "rows"))
        elif name == "encode":
            encode(folder / "rows", one, BACKBONE)(made(folder / "tokens"))
        else:
            model = MultiTaskModel(BACKBONE, method(), one)
            work = mixed_batches(model, {"mood": (read_tokens(folder / "tokens", "mood"), 1.0)}, settings(), 0)
            run_loop(work, settings(), 0, made(folder / "state"))
    print(json.dumps({"idle": before[0], "peak": peak[0], "seconds": time.perf_counter() - began}))


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def by_rows() -> str:
    lines = [
        "| rows | stage | MB | of 10⁴ rows | rows/s |",
        "| --- " * 5 + "|",
    ]
    first: dict[str, float] = {}
    for count in (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as name:
            make_rows(Path(name) / "source", count)
            for stage_name in ("preprocess", "encode", "train"):
                command = [sys.executable, __file__, "stage", "--stage", stage_name, "--folder", name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                first.setdefault(stage_name, found["peak"])
                rate = f"{(120 * 32 if stage_name == 'train' else count) / found['seconds']:.0f}"
                ratio = found["peak"] / first[stage_name]
                lines.append(f"| {count:,} | {stage_name} | {found['peak']:.0f} | {ratio:.2f} | {rate} |")
                print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


# --- processes


@dataclass(frozen=True)
class Given:
    """What a process is given."""

    folder: Path
    training: TrainingSettings


class Timed(TrainerCallback):
    """Seconds from the twentieth step to the last."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 20:
            self.began = time.perf_counter()
        if state.global_step == state.max_steps:
            self.seconds = time.perf_counter() - self.began


def fit(given: Given) -> None:
    model = MultiTaskModel(BACKBONE, method(), Tasks({"mood": TASK}))
    work = mixed_batches(model, {"mood": (read_tokens(given.folder / "tokens", "mood"), 1.0)}, given.training, 0)
    timed = Timed()
    run_loop(work, given.training, 0, given.folder / f"state{given.training.processes}", [timed])
    if rank() == 0:
        (given.folder / "seconds").write_text(str(timed.seconds))


def by_processes(batch_size: int) -> str:
    lines = ["| processes | threads each | rows/s | of one |", "| --- " * 4 + "|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rows(folder / "source", 10_000)
        for stage_name in ("preprocess", "encode"):
            command = [sys.executable, __file__, "stage", "--stage", stage_name, "--folder", name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rates = []
        for processes in (1, 2):
            training = settings(processes=processes, batch_size=batch_size)
            launch(fit, Given(folder, training), training)
            rates.append(100 * batch_size / float((folder / "seconds").read_text()))
            threads = max(1, torch.get_num_threads() // processes)
            lines.append(f"| {processes} | {threads} | {rates[-1]:.0f} | {rates[-1] / rates[0]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tasks", "rows", "processes", "stage"])
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing tasks")
    parser.add_argument("--batch-size", type=int, default=64, help="of timing processes")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "stage":
        stage(given.stage, given.folder)
    elif given.what == "tasks":
        print(by_tasks(given.seconds))
    elif given.what == "rows":
        print(by_rows())
    else:
        print(by_processes(given.batch_size))


if __name__ == "__main__":
    main()
