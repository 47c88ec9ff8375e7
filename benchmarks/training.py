r"""Time and memory of a training step compared with other implementations on the same backbone.

    python benchmarks/training.py                                     # t5-small's size
    python benchmarks/training.py --size minilm
    python benchmarks/training.py --before CHECKOUT                   # also this project at another commit

A batch has 32 rows with the lengths of GLUE's rows, and all weights are random. Every step runs in a process of its
own; a round runs all steps in random order. The ratios are medians over rounds. bf16 is included if the CPU has
instructions for it.

Other implementations run in environments of their own, in the folder --peers; a missing environment is left out:

    python -m venv build/peers/adapters
    build/peers/adapters/bin/pip install torch==2.13.0 adapters==1.3.0
    python -m venv build/peers/peft
    build/peers/peft/bin/pip install torch==2.13.0 peft==0.21.2 transformers==4.57.6

The authors' code also needs its repository (github.com/rabeehk/hyperformer at 56b0f99) in build/peers/authors/code:

    python -m venv build/peers/authors
    build/peers/authors/bin/pip install torch==2.13.0 numpy tokenizers six sacremoses "protobuf<4" requests filelock \
        tqdm regex packaging
    build/peers/authors/bin/pip install --no-deps transformers==3.5.1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from training_steps import BATCH, SIZES, write_inputs

from hyperformer.training.trainer import uses_bf16

ROOT = Path(__file__).parents[1]
OURS = "HyperFormer++"
PEERS = {
    "fine-tuning": ("full fine-tuning", "peft"),
    "adapters": ("AdapterHub's adapters", "adapters"),
    "peft": ("PEFT: LoRA", "peft"),
    "authors": ("the authors' HyperFormer++", "authors"),
}
"""Step → its name in the table, and its environment."""
Command = tuple[str, str, str]
"""The Python, the step and the source folder of a process."""


def list_commands(options: argparse.Namespace) -> dict[str, Command]:
    """Return the processes of a round, by the name of their step in the table."""
    ours = {OURS: "hyperformer", f"{OURS}, rows of one task": "hyperformer-one-task"}
    if uses_bf16("auto"):
        ours[f"{OURS}, bf16"] = "hyperformer-bf16"
    commands = {name: (sys.executable, step, str(ROOT / "src")) for name, step in ours.items()}
    if options.before:
        before = {
            f"before: {name}": (python, step, f"{options.before}/src") for name, (python, step, _) in commands.items()
        }
        commands |= before
    for step, (name, environment) in PEERS.items():
        python = options.peers / environment / "bin" / "python"
        if not python.is_file():
            print(f"left out, because {python} is missing: {name}", file=sys.stderr)
        elif step != "authors" or options.size == "t5-small":
            commands[name] = (str(python.absolute()), step, str(options.peers / environment / "code"))
    return commands


def format_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Format the results of all rounds, by name of the step, as Markdown."""
    lines = [
        "| step | trained, K | ms | time / first row | rows/s | MB |",
        "| --- " * 6 + "|",
    ]
    means = {name: [float(np.mean(run["seconds"])) for run in results] for name, results in runs.items()}
    for name, seconds in means.items():
        ratio = np.median([value / first for value, first in zip(seconds, means[OURS], strict=True)])
        memory = np.median([run["memory"] for run in runs[name]])
        lines.append(
            f"| {name} | {runs[name][0]['trained'] / 1e3:,.0f} | {1e3 * np.median(seconds):.0f} | {ratio:.2f} "
            f"| {BATCH / np.median(seconds):.1f} | {memory:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="t5-small", help="size of the backbone")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="folder of the peers' environments")
    parser.add_argument("--before", type=Path, help="checkout of another commit of this project")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    commands, draw = list_commands(options), np.random.default_rng()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.size)
        for number in range(options.rounds):
            for name in draw.permutation(list(commands)).tolist():
                python, step, source = commands[name]
                script = str(Path(__file__).with_name("training_steps.py"))
                process = subprocess.run(
                    [python, script, folder, step, source, options.size, str(options.threads)],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                runs[name].append(json.loads(process.stdout.splitlines()[-1]))
            print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)
    print(f"{options.size}, {BATCH} rows with GLUE's lengths, {options.threads} threads, {options.rounds} rounds\n")
    print(format_table(runs))


if __name__ == "__main__":
    main()
