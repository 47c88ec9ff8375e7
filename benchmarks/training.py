"""How long a training step takes beside what else would train the same T5: medians over processes, and ratios.

    python benchmarks/training.py                                     # 16 rows of 64 tokens, t5-small's sizes
    python benchmarks/training.py --lengths glue --data FOLDER        # GLUE's lengths: ways of padding, 32 rows

FOLDER holds <task>/train.parquet. Its texts are cut into tokens by the tokenizer in --tokenizer, or the shipped one's
where there is none. All weights are random. bf16 takes part where the processor has instructions for it.

A process makes all contenders and times them in random turns, so that what slows the machine down slows all. What a
step takes of memory is measured in a process for each: how far the resident memory rises in three steps above what it
is before, the model being there, the optimizer's state and gradients not yet.

AdapterHub's `adapters` and PEFT take part if they are installed. Give them a folder of their own, and name that in
PYTHONPATH; adapters 1.3.0 wants just the transformers that the project has, 4.57.6:

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
import training_contenders
import training_lengths

KINDS: dict[str, Any] = {"full": training_contenders, "glue": training_lengths}
ROWS = {"full": 16, "glue": 32}
LEAST = 6  # rounds of a process
SETTLE = 0.03  # seconds before each step: threads of the one before may still be spinning


def measure(given: argparse.Namespace) -> None:
    """Prints a JSON line: contender → seconds of each step of this process, and what it trains."""
    kind = KINDS[given.lengths]
    running = kind.contenders(given.measure, given.rows)
    draw = np.random.default_rng()
    times: dict[str, list[float]] = {name: [] for name in running}
    for one in running.values():
        one.step(0)
    began, number = time.perf_counter(), 0
    while number < LEAST or number % kind.WINDOW or time.perf_counter() - began < given.seconds:
        for name in draw.permutation(list(running)).tolist():
            time.sleep(SETTLE)
            start = time.perf_counter()
            running[name].step(number)
            times[name].append(time.perf_counter() - start)
        number += 1
    sizes = {name: {"trained": one.trained, "tokens": one.tokens} for name, one in running.items()}
    print(json.dumps({name: {"seconds": times[name], **sizes[name]} for name in running}))


def memory(given: argparse.Namespace) -> None:
    """Prints by how many MB the resident memory of this process rises in three steps of one contender."""
    one = training_contenders.contenders(given.measure, given.rows, given.only)[given.only]
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else the first step would fill what loading left
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark becomes the present one
    before = resident("VmRSS")
    for number in range(3):
        one.step(number)
    print(json.dumps(resident("VmHWM") - before))


def resident(mark: str) -> float:
    """A line of this process's status, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[mark].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", choices=list(KINDS), default="full")
    parser.add_argument("--data", type=Path, help="of GLUE's rows, for --lengths glue")
    parser.add_argument("--tokenizer", type=Path, default=Path("data/minilm/06_models/backbone"))
    parser.add_argument("--rows", type=int, help="of a batch; else 16, or 32 for --lengths glue")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help=f"of each process, at least {LEAST} rounds")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.rows = given.rows or ROWS[given.lengths]
    if given.lengths == "glue" and not given.data:
        parser.error("--lengths glue reads rows: name their folder with --data")
    if given.measure:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        torch.set_num_threads(given.threads)
        (memory if given.only else measure)(given)
        return
    kind = KINDS[given.lengths]
    with tempfile.TemporaryDirectory() as name:
        kind.make(Path(name), given)

        def process(**more: str) -> Any:
            options = {
                "measure": name,
                **{key: getattr(given, key) for key in ("lengths", "rows", "threads", "seconds")},
            }
            options |= more | ({"data": given.data} if given.data else {})
            words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
            done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
            return json.loads(done.stdout.splitlines()[-1])

        runs = []
        for number in range(given.processes):
            runs.append(process())
            print(f"process {number + 1} of {given.processes} is done", file=sys.stderr)
        used = {}
        if given.lengths == "full":
            used = {one: process(only=one) for one in runs[0] if one != training_contenders.GENERATING}
    missing = [] if given.lengths == "glue" else [one for one in ("adapters", "peft") if not find_spec(one)]
    left_out = f"; left out, as not installed: {', '.join(missing)}" if missing else ""
    rounds = len(next(iter(runs[0].values()))["seconds"])
    print(f"{given.rows} rows, {given.threads} threads, {given.processes} processes, {rounds} rounds or so{left_out}")
    print(kind.table(runs, given.rows, used))


if __name__ == "__main__":
    main()
