"""How fast an exported task answers, beside what else would answer it: medians over processes, and ratios.

    python benchmarks/inference.py                       # t5-small's sizes, random weights
    python benchmarks/inference.py --sizes default       # those of the shipped backbone
    python benchmarks/inference.py --sizes minilm        # all-MiniLM-L6-v2's, random weights

Every contender answers the same rows among the same answers. For a T5 these are `mnli`, entailment, neutral and
contradiction as T5's own vocabulary writes them (5, 2 and 2 tokens with </s>), or `short`, two answers of 2 tokens, and
`generate` writes as many tokens as the longest has; for an encoder, as many labels. A process loads all contenders and
times them in random turns, so that what slows the machine down slows all. CTranslate2 takes part if it is installed:
give it a folder of its own (pip install --no-deps --target build/peers ctranslate2), and name that in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import encoder_contenders
import numpy as np
import t5_contenders

KINDS = {sizes: kind for kind in (t5_contenders, encoder_contenders) for sizes in kind.SIZES}
SHAPES = [(batch, length) for batch in (1, 8, 32) for length in (32, 128)]
SETTLE = 0.03  # seconds before each run: threads of the one before may still be spinning


def measure(folder: Path, sizes: str, answers: str, threads: int, seconds: float) -> None:
    """Prints a JSON line: shape → contender → median seconds of this process."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    running = KINDS[sizes].contenders(folder, answers, threads)
    ours = next(iter(running))
    draw = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    for batch, length in SHAPES:
        ids = draw.integers(100, 1800, (batch, length))
        times: dict[str, list[float]] = {name: [] for name in running}
        began = time.perf_counter()
        while time.perf_counter() - began < seconds or len(times[ours]) < 4:
            for name in draw.permutation(list(running)).tolist():
                run = running[name]
                time.sleep(SETTLE)
                start = time.perf_counter()
                run(ids)
                times[name].append(time.perf_counter() - start)
        found[f"{batch} × {length}"] = {name: statistics.median(values[1:]) for name, values in times.items()}  # noqa: RUF001
    print(json.dumps(found))


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """Medians over processes in Markdown: ours in milliseconds, the others as how many times longer they take."""
    names = list(runs[0][next(iter(runs[0]))])
    head = ["batch × tokens", f"{names[0]}, ms", *names[1:]]  # noqa: RUF001
    lines = [f"| {' | '.join(head)} |", f"| {'--- | ' * len(head)}".rstrip()]
    for shape in runs[0]:
        ours = statistics.median(run[shape][names[0]] for run in runs)
        ratios = [statistics.median(run[shape][name] / run[shape][names[0]] for run in runs) for name in names[1:]]
        lines.append(f"| {shape} | {1000 * ours:.2f} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=list(KINDS), default="t5-small")
    parser.add_argument("--answers", choices=list(t5_contenders.ANSWERS), default="mnli")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each shape and process, at least four rounds")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.sizes, given.answers, given.threads, given.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        KINDS[given.sizes].make(folder, given.sizes, given.answers)
        size = {path.stem: f"{path.stat().st_size / 1e6:.1f} MB" for path in sorted(folder.glob("*.onnx"))}
        runs = []
        for number in range(given.processes):
            given_on = {key: getattr(given, key) for key in ("sizes", "answers", "threads", "seconds")}
            options = {"measure": name, **given_on}
            words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
            command = [sys.executable, __file__, *words]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"process {number + 1} of {given.processes} is done", file=sys.stderr)
        settings = f"{given.sizes}, answers {given.answers}, {given.threads} threads, {given.processes} processes"
        print(f"{settings}; files: {size}\n{table(runs)}")


if __name__ == "__main__":
    main()
