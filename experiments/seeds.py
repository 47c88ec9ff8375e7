"""Runs of the default settings with several seeds, on the pretrained backbone or on an untrained one.

    python experiments/seeds.py 0 1 2 untrained-0     # computes these runs, then prints the tables
    python experiments/seeds.py                       # only prints the tables of the recorded runs

Run `N` is `kedro run --env base --params seed=N` in a temporary copy of the tree, without pretraining and export. Run
`untrained-N` first replaces the pretrained backbone by a newly initialized one. Each run is recorded in a JSON file,
and is not computed again as long as it is up to date.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from hyperformer.core.files import folder_sha256

ROOT = Path(__file__).parents[1]
RUNS = Path(__file__).parent / "seeds"
BACKBONE = Path("data/06_models/backbone")
STAGES = "language,preprocess,train,evaluate,baselines"
INPUTS = ("conf/base", "pipelines", "src/hyperformer", BACKBONE)
COLUMNS = {"HyperFormer++": "model", "majority": "majority", "TF-IDF": "tfidf", "TF-IDF + overlap": "overlap"}


def fingerprint() -> dict[str, str]:
    """Return the sha256 of every folder that a run depends on."""
    return {str(folder): folder_sha256(ROOT / folder) for folder in INPUTS}


def run(name: str) -> None:
    """Compute one run in a copy of the tree and write its JSON file, unless it is up to date."""
    path, made_from = RUNS / f"{name}.json", fingerprint()
    if path.is_file() and json.loads(path.read_text())["made_from"] == made_from:
        print(f"{path.name} is up to date")
        return
    seed = name.rpartition("-")[2]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("conf", "pipelines", BACKBONE):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("local", "__pycache__"))
        for file in ("pyproject.toml", ".telemetry"):
            shutil.copy(ROOT / file, tree / file)
        if name.startswith("untrained"):
            untrain(tree / BACKBONE, int(seed))
        kedro(tree, "--tags", STAGES, "--params", f"seed={seed}")
        report = tree / "data" / "08_reporting"
        scores = json.loads((report / "baselines.json").read_text())
        result = {
            "made_from": made_from,
            "metrics": json.loads((report / "metrics.json").read_text()),
            "baselines": {task: {**test, "notes": scores["notes"][task]} for task, test in scores["test"].items()},
        }
    RUNS.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def untrain(folder: Path, seed: int) -> None:
    """Replace the pretrained T5 by a newly initialized one with the same sizes and tokenizer."""
    import torch
    from transformers import AutoTokenizer

    from hyperformer.backbones import t5

    sizes = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text())["pretraining"]["sizes"]
    torch.manual_seed(seed)
    t5.create_backbone(AutoTokenizer.from_pretrained(folder), sizes).save(folder)


def kedro(tree: Path, *options: str) -> None:
    """Run the base environment's pipeline in a tree."""
    environment = {**os.environ, "DO_NOT_TRACK": "1", "KEDRO_DISABLE_TELEMETRY": "1"}
    subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--env", "base", *options], cwd=tree, env=environment, check=True
    )


def table(runs: list[dict[str, Any]]) -> str:
    """Format the test metrics as Markdown: means over runs, with standard deviations in the model's column only."""
    tasks = [name for name in runs[0]["metrics"]["test"] if name != "mean"]
    lines = [f"| task | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for task in [*tasks, "mean"]:
        texts = []
        for column in COLUMNS.values():
            values = [
                statistics.mean(value(run, name, column) for name in (tasks if task == "mean" else [task]))
                for run in runs
            ]
            deviation = f" ± {statistics.stdev(values):.1f}" if column == "model" and len(values) > 1 else ""
            mean = statistics.mean(values)
            texts.append("left out" if math.isnan(mean) else f"{mean:.1f}{deviation}")
        lines.append(f"| {task} | {' | '.join(texts)} |")
    return "\n".join(lines)


def value(run: dict[str, Any], task: str, column: str) -> float:
    """Return a task's mean metric of the model or of a baseline; NaN if the baseline is left out.

    A task with one text has no overlap between texts, so `tfidf` replaces this baseline.
    """
    if column == "model":
        return float(run["metrics"]["test"][task]["mean"])
    baselines = run["baselines"][task]
    if column == "overlap" and column not in {*baselines, *baselines.get("notes", {})}:
        column = "tfidf"
    return float(baselines[column]["mean"]) if column in baselines else math.nan


def main() -> None:
    """Compute the runs that the command line names, and print the tables of all recorded runs."""
    for name in sys.argv[1:]:
        run(name)
    for title, pattern in (("pretrained", "[0-9]*.json"), ("untrained backbone", "untrained-*.json")):
        runs = [json.loads(path.read_text()) for path in sorted(RUNS.glob(pattern))]
        if runs:
            print(f"\n{title}, {len(runs)} seeds\n{table(runs)}")


if __name__ == "__main__":
    main()
