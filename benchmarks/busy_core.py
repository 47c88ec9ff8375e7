"""Time of a training while another process keeps one core busy, by number of threads.

    python benchmarks/busy_core.py                    # bf16 if the CPU supports it
    python benchmarks/busy_core.py --precision fp32
    python benchmarks/busy_core.py --idle             # without the busy process

Each round trains in new processes, one after another: with the default number of threads, with one, with two, with
two that sleep as soon as they wait, and with two that spin for milliseconds as by OpenMP's default. The table has the
median time of each over the rounds, and the median ratio to the better of one and two threads of the same round. The
model is the shipped backbone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BACKBONE = Path(__file__).parents[1] / "data/06_models/backbone"
WARM_UP = 3  # steps that are not timed
VARIANTS: dict[str, tuple[int | None, dict[str, str]]] = {
    "default": (None, {}),
    "one": (1, {}),
    "two": (2, {}),
    "two, sleeping": (2, {"OMP_WAIT_POLICY": "passive"}),
    "two, spinning": (2, {"GOMP_SPINCOUNT": "300000"}),  # the default of GNU's OpenMP
}
"""Number of threads, None for the default, and environment variables, by name."""
SPIN = "while True: pass"


def measure(threads: int | None, steps: int, precision: str) -> None:
    """Train, and print the seconds per step and the number of threads as JSON."""
    import hyperformer  # noqa: F401, I001 - before PyTorch, as in every command
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from transformers import TrainerCallback

    from hyperformer.core.cpus import use_threads
    from hyperformer.model.multi_task import MultiTaskModel
    from hyperformer.settings import BackboneSettings, Methods, Tasks, TrainingSettings
    from hyperformer.training.jobs import build_mixture_job
    from hyperformer.training.schedule import schedule_training
    from hyperformer.training.trainer import run_loop

    class Timer(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: object, **__: object) -> None:
            self.times.append(time.perf_counter())

    used, timer = use_threads(threads), Timer()
    sizes = {"task_embedding_dim": 64, "projector": {"hidden_dim": 128, "output_dim": 64}}
    task = {"text": "{text}", "kind": "classification", "label_column": "label", "labels": {0: "0", 1: "1"}}
    tasks = Tasks({"task": {**task, "metrics": ["accuracy"]}})
    method = Methods({"hyperformer_plus_plus": {"reduction_factor": 8, **sizes}})
    backbone = BackboneSettings(path=str(BACKBONE), max_source_tokens=64, max_target_tokens=32)
    model = MultiTaskModel(backbone, method.get_method("hyperformer_plus_plus"), tasks)
    draw = np.random.default_rng(0)
    sources = [draw.integers(10, 1000, length).tolist() for length in draw.integers(8, 40, 320)]
    rows = Dataset(pa.table({"input_ids": sources, "labels": [[20, 1]] * len(sources)}))
    lengths = {"steps": steps + WARM_UP, "warmup_steps": 0, "batch_size": 32, "validation_rows": 1}
    settings = TrainingSettings(**lengths, learning_rate=1e-4, temperature=1, precision=precision)  # type: ignore[arg-type]
    schedule = schedule_training(settings, len(sources))
    with tempfile.TemporaryDirectory() as state:
        run_loop(build_mixture_job(model, {"task": (rows, 1.0)}, schedule, 0), schedule, 0, Path(state), [timer])
    print(json.dumps({"seconds": (timer.times[-1] - timer.times[WARM_UP - 1]) / steps, "threads": used}))


def run(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure a variant in a new process."""
    threads, variables = VARIANTS[name]
    arguments = ["--measure", str(threads or 0), "--steps", str(options.steps), "--precision", options.precision]
    process = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure all variants in interleaved rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a training")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--idle", action="store_true", help="keep no core busy")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure or None, options.steps, options.precision)
        return
    busy = None if options.idle else subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        rounds = []
        for number in range(options.rounds):
            names = [*VARIANTS][number % len(VARIANTS) :] + [*VARIANTS][: number % len(VARIANTS)]  # in turn
            rounds.append({name: run(name, options) for name in names})
            print(f"round {number + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    finally:
        if busy:
            busy.kill()
    print(f"{'idle' if options.idle else 'one core busy'}, {options.precision}, {options.rounds} rounds")
    print("| threads | number | ms per step | ratio to the better of one and two |\n| --- | --- | --- | --- |")
    for name in VARIANTS:
        best = [min(line["one"]["seconds"], line["two"]["seconds"]) for line in rounds]
        ratio = statistics.median(line[name]["seconds"] / low for line, low in zip(rounds, best, strict=True))
        median = statistics.median(line[name]["seconds"] for line in rounds)
        print(f"| {name} | {rounds[0][name]['threads']:.0f} | {1000 * median:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
