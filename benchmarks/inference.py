"""Inference time of an exported task compared with other implementations: medians over processes, and ratios.

    python benchmarks/inference.py                       # a model of t5-small's size, with random weights
    python benchmarks/inference.py --sizes default       # a model of the shipped backbone's size
    python benchmarks/inference.py --sizes minilm        # a model of all-MiniLM-L6-v2's size

All scorers process the same rows with the same answers. For a T5 the answers are `mnli`: entailment, neutral and
contradiction in T5's own vocabulary (5, 2 and 2 tokens with </s>), or `short`: two answers of 2 tokens. Scorers with
`generate` in their name write as many tokens as the longest answer has. An encoder has a label for each answer. A
process loads all scorers and times them in random order, so that a slowdown of the machine affects all of them.
CTranslate2 is included if it is installed: install it into a separate folder (pip install --no-deps --target
build/peers ctranslate2), and add that folder to PYTHONPATH.
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

import encoder_peers
import numpy as np
import t5_peers

FAMILIES = {sizes: family for family in (t5_peers, encoder_peers) for sizes in family.SIZES}
"""The module that writes and loads the scorers, by the name of the model's size."""
SHAPES = [(batch, length) for batch in (1, 8, 32) for length in (32, 128)]
"""The number of rows and the number of tokens per row, for each batch."""
SETTLE = 0.03  # seconds to wait before each call, as threads of the previous call may still spin


def measure(folder: Path, sizes: str, answers: str, threads: int, seconds: float) -> None:
    """Print a JSON line: the median seconds of a call in this process, by shape and scorer.

    Args:
        folder: The folder of the scorers.
        sizes: A name in `FAMILIES`.
        answers: The name of the answer set.
        threads: Number of threads of each scorer.
        seconds: Minimum time for each shape, in seconds; at least four rounds are timed.
    """
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    scorers = FAMILIES[sizes].load_scorers(folder, answers, threads)
    ours = next(iter(scorers))
    draw = np.random.default_rng(0)
    medians: dict[str, dict[str, float]] = {}
    for batch, length in SHAPES:
        ids = draw.integers(100, 1800, (batch, length))
        times: dict[str, list[float]] = {name: [] for name in scorers}
        first_start = time.perf_counter()
        while time.perf_counter() - first_start < seconds or len(times[ours]) < 4:
            for name in draw.permutation(list(scorers)).tolist():
                score = scorers[name]
                time.sleep(SETTLE)
                start = time.perf_counter()
                score(ids)
                times[name].append(time.perf_counter() - start)
        medians[f"{batch} × {length}"] = {name: statistics.median(values[1:]) for name, values in times.items()}  # noqa: RUF001
    print(json.dumps(medians))


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """Format medians over processes as Markdown: our time in milliseconds, the other times as multiples of ours."""
    names = list(runs[0][next(iter(runs[0]))])
    head = ["batch × tokens", f"{names[0]}, ms", *names[1:]]  # noqa: RUF001
    lines = [f"| {' | '.join(head)} |", f"| {'--- | ' * len(head)}".rstrip()]
    for shape in runs[0]:
        ours = statistics.median(run[shape][names[0]] for run in runs)
        ratios = [statistics.median(run[shape][name] / run[shape][names[0]] for run in runs) for name in names[1:]]
        lines.append(f"| {shape} | {1000 * ours:.2f} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure in several processes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=list(FAMILIES), default="t5-small")
    parser.add_argument("--answers", choices=list(t5_peers.ANSWERS), default="mnli")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="seconds for each shape and process, at least four rounds"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.sizes, options.answers, options.threads, options.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        FAMILIES[options.sizes].write_models(folder, options.sizes, options.answers)
        size = {path.stem: f"{path.stat().st_size / 1e6:.1f} MB" for path in sorted(folder.glob("*.onnx"))}
        runs = []
        for number in range(options.processes):
            shared = {key: getattr(options, key) for key in ("sizes", "answers", "threads", "seconds")}
            values = {"measure": name, **shared}
            arguments = [text for key, value in values.items() for text in (f"--{key}", str(value))]
            command = [sys.executable, __file__, *arguments]
            process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs.append(json.loads(process.stdout.splitlines()[-1]))
            print(f"process {number + 1} of {options.processes} is done", file=sys.stderr)
        settings = (
            f"{options.sizes}, answers {options.answers}, {options.threads} threads, {options.processes} processes"
        )
        print(f"{settings}; files: {size}\n{table(runs)}")


if __name__ == "__main__":
    main()
