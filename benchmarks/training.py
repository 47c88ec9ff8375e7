"""Time of a training step compared with other implementations on the same T5: medians over processes, and ratios.

    python benchmarks/training.py                                     # 16 rows of 64 tokens, t5-small's size
    python benchmarks/training.py --lengths glue --data FOLDER        # ways to pad 32 rows of GLUE

FOLDER contains <task>/train.parquet for each task. The texts are encoded by the tokenizer in --tokenizer or, if that
folder is missing, by the shipped tokenizer. All weights are random. bf16 is included if the CPU has instructions for
it.

A process creates all steps and times them in random order, so that a slowdown of the machine affects all of them. The
memory of each step is measured in a separate process, but not with --lengths glue: it is the peak of the resident
memory in three steps minus the resident memory of the loaded model.

AdapterHub's `adapters` and PEFT are included if they are installed. Install them into a separate folder and add that
folder to PYTHONPATH; adapters 1.3.0 requires exactly the project's version of transformers, 4.57.6:

    pip install --no-deps --target build/peers adapters==1.3.0 peft==0.21.2
    PYTHONPATH=build/peers python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import training_lengths
import training_peers

BENCHMARKS: dict[str, Any] = {"full": training_peers, "glue": training_lengths}
"""The module that creates the steps, by value of --lengths."""
ROWS = {"full": 16, "glue": 32}
"""Default number of rows in a batch, by value of --lengths."""
MIN_ROUNDS = 6  # minimum number of rounds of a process
SETTLE = 0.03  # seconds to wait before each step, as threads of the previous step may still spin


def measure(options: argparse.Namespace) -> None:
    """Print a JSON line: the seconds of each step in this process and the step's sizes, by name."""
    benchmark = BENCHMARKS[options.lengths]
    steps = benchmark.make_steps(options.measure, options.rows)
    draw = np.random.default_rng()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step.step(0)
    first_start, number = time.perf_counter(), 0
    while number < MIN_ROUNDS or number % benchmark.WINDOW or time.perf_counter() - first_start < options.seconds:
        for name in draw.permutation(list(steps)).tolist():
            time.sleep(SETTLE)
            start = time.perf_counter()
            steps[name].step(number)
            times[name].append(time.perf_counter() - start)
        number += 1
    sizes = {name: {"trainable": step.trainable, "tokens": step.tokens} for name, step in steps.items()}
    print(json.dumps({name: {"seconds": times[name], **sizes[name]} for name in steps}))


def measure_memory(options: argparse.Namespace) -> None:
    """Print how far the resident memory in three steps rises above that of the loaded model, in MB."""
    step = training_peers.make_steps(options.measure, options.rows, options.only)[options.only]
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # otherwise the first step would reuse memory that loading freed
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the present value
    before = resident("VmRSS")
    for number in range(3):
        step.step(number)
    print(json.dumps(resident("VmHWM") - before))


def resident(field: str) -> float:
    """Return a field of this process's status, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def main() -> None:
    """Measure in several processes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", choices=list(BENCHMARKS), default="full")
    parser.add_argument("--data", type=Path, help="folder of GLUE's rows, for --lengths glue")
    parser.add_argument("--tokenizer", type=Path, default=Path("data/minilm/06_models/backbone"))
    parser.add_argument("--rows", type=int, help="number of rows in a batch; by default 16, or 32 for --lengths glue")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help=f"seconds for each process, at least {MIN_ROUNDS} rounds"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rows = options.rows or ROWS[options.lengths]
    if options.lengths == "glue" and not options.data:
        parser.error("--lengths glue requires GLUE's rows; set their folder with --data")
    if options.measure:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        torch.set_num_threads(options.threads)
        (measure_memory if options.only else measure)(options)
        return
    benchmark = BENCHMARKS[options.lengths]
    with tempfile.TemporaryDirectory() as name:
        benchmark.write_inputs(Path(name), options)

        def run(**more: str) -> Any:
            values = {
                "measure": name,
                **{key: getattr(options, key) for key in ("lengths", "rows", "threads", "seconds")},
            }
            values |= more | ({"data": options.data} if options.data else {})
            arguments = [text for key, value in values.items() for text in (f"--{key}", str(value))]
            process = subprocess.run(
                [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
            )
            return json.loads(process.stdout.splitlines()[-1])

        runs = []
        for number in range(options.processes):
            runs.append(run())
            print(f"process {number + 1} of {options.processes} is done", file=sys.stderr)
        memory = {}
        if options.lengths == "full":
            memory = {step: run(only=step) for step in runs[0] if step != training_peers.GENERATION}
    missing = [] if options.lengths == "glue" else [name for name in ("adapters", "peft") if not find_spec(name)]
    skipped = f"; not installed: {', '.join(missing)}" if missing else ""
    rounds = len(next(iter(runs[0].values()))["seconds"])
    print(
        f"{options.rows} rows, {options.threads} threads, {options.processes} processes, about {rounds} rounds{skipped}"
    )
    print(benchmark.table(runs, options.rows, memory))


if __name__ == "__main__":
    main()
