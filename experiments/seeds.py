"""The embedded default over seeds, and on an untrained backbone: one small JSON a run, and the tables from them.

    python experiments/seeds.py 0 1 2 untrained-0     # runs what has no cell of this code and configuration yet
    python experiments/seeds.py                       # prints the tables of the cells that are there

Each run is `kedro run --env base --params seed=N` in a copy of the tree, without export.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from hyperformer.manifest import folder_sha256

ROOT = Path(__file__).parents[1]
CELLS = Path(__file__).parent / "seeds"
BACKBONE = Path("data/06_models/backbone")
STAGES = "language,preprocess,train,evaluate,baselines"
PARTS = ("conf/base", "pipelines", "src/hyperformer", BACKBONE)
COLUMNS = {"HyperFormer++": "model", "majority": "majority", "TF-IDF": "tfidf", "+ overlap": "overlap"}


def fingerprint() -> dict[str, str]:
    return {str(part): folder_sha256(ROOT / part) for part in PARTS}


def run(name: str) -> None:
    """Runs one cell in a copy of the tree and writes its JSON."""
    path, made_from = CELLS / f"{name}.json", fingerprint()
    if path.is_file() and json.loads(path.read_text())["made_from"] == made_from:
        print(f"{path.name} is there")
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
        cell = {
            "made_from": made_from,
            "metrics": json.loads((report / "metrics.json").read_text()),
            "baselines": json.loads((report / "baselines.json").read_text()),
        }
    CELLS.mkdir(exist_ok=True)
    path.write_text(json.dumps(cell, indent=1) + "\n")


def untrain(folder: Path, seed: int) -> None:
    """Puts a T5 of the same sizes and tokenizer in place of the pretrained one, as pretraining begins with it."""
    import torch
    from transformers import AutoTokenizer

    from hyperformer.backbones import t5

    sizes = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text())["pretraining"]["sizes"]
    torch.manual_seed(seed)
    t5.new(AutoTokenizer.from_pretrained(folder), sizes).save(folder)


def kedro(tree: Path, *words: str) -> None:
    environment = {**os.environ, "DO_NOT_TRACK": "1", "KEDRO_DISABLE_TELEMETRY": "1"}
    subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--env", "base", *words], cwd=tree, env=environment, check=True
    )


def table(cells: list[dict[str, Any]]) -> str:
    """Test metrics in Markdown: means over the cells, and the standard deviation of the model's."""
    tasks = [name for name in cells[0]["metrics"]["test"] if name != "mean"]
    lines = [f"| task | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for task in [*tasks, "mean"]:
        found = []
        for column in COLUMNS.values():
            values = [
                statistics.mean(value(cell, name, column) for name in (tasks if task == "mean" else [task]))
                for cell in cells
            ]
            spread = f" ± {statistics.stdev(values):.1f}" if column == "model" and len(values) > 1 else ""
            found.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append(f"| {task} | {' | '.join(found)} |")
    return "\n".join(lines)


def value(cell: dict[str, Any], task: str, column: str) -> float:
    if column == "model":
        return float(cell["metrics"]["test"][task]["mean"])
    baselines = cell["baselines"][task]
    return float(baselines.get(column, baselines["tfidf"])["mean"])


def main() -> None:
    for name in sys.argv[1:]:
        run(name)
    for title, pattern in (("pretrained", "[0-9]*.json"), ("untrained backbone", "untrained-*.json")):
        cells = [json.loads(path.read_text()) for path in sorted(CELLS.glob(pattern))]
        if cells:
            print(f"\n{title}, {len(cells)} seeds\n{table(cells)}")


if __name__ == "__main__":
    main()
