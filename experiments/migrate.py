"""Migrate the recorded runs of version 0.1 to today's names of keys and settings; for use once.

    python -m experiments.migrate OLD_TREE [--source SUITE=FOLDER ...] [--write]

OLD_TREE is a git worktree of commit cced483. `--source` names the folder of rows that a transfer suite was run with, as
its path is a setting of the tasks. Without `--write` nothing is written.

For every run the script resolves the settings by the old and by the new code, renames the old ones (`rename_settings`,
and the names in plan.yaml), and compares all values; it stops at the first difference. The checksum of settings in a
run is replaced where it equals the old code's, and left alone elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from experiments import store
from experiments.comparison import Comparison
from experiments.plan import ROOT, load_plan
from experiments.transfer import REGRESSION, Transfer, run_name
from hyperformer.config import Settings, rename_settings

DUMP = """
import json, sys
from experiments import cells
from experiments.comparison import Comparison
from experiments.plan import plan
from experiments.transfer import Transfer
from hyperformer.config import Tasks

def dump(parts):
    return [
        part.model_dump(mode="json", exclude_defaults=True) if hasattr(part, "model_dump") else part for part in parts
    ]

sources, records, digested = json.loads(sys.argv[1]), {}, []
original = cells.digest
def recording(parts):
    digested[:] = parts
    return original(parts)
cells.digest = recording

def record(path, settings, digest):
    records[str(path.relative_to(cells.CELLS))] = {
        "digest": digest, "settings": settings.model_dump(mode="json"), "parts": dump(digested)
    }

for name, suite in plan().comparison.items():
    comparison = Comparison(name, suite)
    for path in sorted((cells.CELLS / "comparison" / name).glob("*.json")):
        run = json.loads(path.read_text())
        settings = comparison.cell_settings(run["contender"], run["learning_rate"], run["seed"])
        record(path, settings, comparison.digest(settings))
for name, suite in plan().transfer.items():
    transfer = Transfer(name, suite, None, sources.get(name))
    for path in sorted((cells.CELLS / "transfer" / name).glob("*.json")):
        run = json.loads(path.read_text())
        contender = suite.contenders.get(run["contender"])
        tasks = Tasks({run["task"]: transfer.settings.tasks.root[run["task"]]})
        adapted = [contender, transfer.settings.transfer] if contender else []
        digest = cells.digest([tasks, *adapted, run["samples"], suite.test_rows])
        record(path, transfer.settings, digest)
print(json.dumps(records))
"""
"""The old code's digest and settings of every run, by the run's path."""
CONFIGURATIONS = {"noise": "random"}


def dump_old(tree: Path, sources: dict[str, str]) -> dict[str, Any]:
    """Return the old code's records."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'src'}"}
    command = [sys.executable, "-c", DUMP, json.dumps(sources)]
    output = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, check=True).stdout
    return dict(json.loads(output))


def dump_new(path: Path, run: dict[str, Any], sources: dict[str, str]) -> tuple[str, Settings, list[Any]]:
    """Return the new code's digest, settings and digested parts of a run; check that its file has its name."""
    digested: list[Any] = []
    original = store.digest

    def recording(parts: Any) -> str:
        digested[:] = parts
        return original(parts)

    plan, (kind, name, _) = load_plan(), path.relative_to(store.RUNS).parts
    store.digest = recording
    try:
        if kind == "comparison":
            comparison = Comparison(name, plan.comparison[name])
            settings = comparison.run_settings(run["configuration"], run["learning_rate"], run["seed"])
            names = {
                comparison.search_run(run["configuration"], run["learning_rate"]),
                comparison.seed_run(run["configuration"], run["seed"]),
            }
            digest = comparison.digest(settings)
        else:
            suite = plan.transfer[name]
            transfer = Transfer(name, suite, Comparison("any", plan.comparison[suite.comparison]), sources.get(name))
            settings, names = transfer.settings, {run_name(run["task"], run["configuration"], run["samples"])}
            adaptation = None if run["configuration"] == REGRESSION else suite.configurations[run["configuration"]]
            digest = transfer.digest(run["task"], adaptation, run["samples"])
    finally:
        store.digest = original
    if path.stem not in names:
        raise SystemExit(f"{path}: got the name {path.stem!r}; expected one of {names}")
    return digest, settings, [dump(part) for part in digested]


def dump(part: Any) -> Any:
    """Return a digested part as JSON, without settings at their defaults."""
    return part.model_dump(mode="json", exclude_defaults=True) if isinstance(part, BaseModel) else part


def rename_part(part: Any) -> Any:
    """Return a digested part of the old code under today's names."""
    if not isinstance(part, dict):
        return part
    if set(part) == {"name", "settings"}:  # a method
        settings = rename_settings({"methods": {part["name"]: part["settings"]}})["methods"][part["name"]]
        return {"name": part["name"], "settings": settings}
    if "trained" in part:  # how a trained model is adapted
        return {"model" if key == "trained" else key: value for key, value in rename_transfer(part).items()}
    if "learning_rate" in part:  # a training or a transfer; no setting of a training was renamed
        return rename_transfer(part)
    return part  # tasks


def rename_transfer(part: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a transfer under today's names."""
    return dict(rename_settings({"transfer": part})["transfer"])


def compare(old: Any, new: Any, name: str) -> int:
    """Compare two trees value by value and return the number of values.

    Raises:
        SystemExit: they differ; names the value.
    """
    if type(old) is not type(new):
        raise SystemExit(f"{name}: got {new!r}; expected {old!r}")
    if isinstance(old, dict):
        if old.keys() != new.keys():
            raise SystemExit(f"{name}: got the keys {sorted(new)}; expected {sorted(old)}")
        return sum(compare(value, new[key], f"{name}.{key}") for key, value in old.items())
    if isinstance(old, list):
        if len(old) != len(new):
            raise SystemExit(f"{name}: got {len(new)} values; expected {len(old)}")
        return sum(compare(a, b, f"{name}.{index}") for index, (a, b) in enumerate(zip(old, new, strict=True)))
    if old != new:
        raise SystemExit(f"{name}: got {new!r}; expected {old!r}")
    return 1


def rename_keys(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run under today's keys and values, in the same order."""
    names = {"contender": "configuration", "processor_seconds": "cpu_seconds", "processor": "device", "runs": "seeds"}
    renamed = {names.get(key, key): value for key, value in run.items()}
    renamed["configuration"] = CONFIGURATIONS.get(renamed["configuration"], renamed["configuration"])
    if "seeds" in renamed:
        renamed["seeds"] = [{names.get(key, key): value for key, value in seed.items()} for seed in renamed["seeds"]]
        for seed in renamed["seeds"]:
            if seed.get("started_from") == "noise":
                seed["started_from"] = "random"
    return renamed


def rename_path(path: str) -> str:
    """Return the path of a run under today's name of its configuration."""
    return path.replace("-noise-", "-random-")


def main() -> None:
    """Migrate the runs and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--source", action="append", default=[], metavar="SUITE=FOLDER")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    sources = dict(pair.split("=", 1) for pair in options.source)
    old = {rename_path(path): record for path, record in dump_old(options.tree.resolve(), sources).items()}
    paths = sorted(store.RUNS.rglob("*.json"))
    if {str(path.relative_to(store.RUNS)) for path in paths} != old.keys():
        raise SystemExit(f"the files under {store.RUNS.relative_to(ROOT)} are not those of {options.tree}")
    values, changed, counts = 0, 0, Counter[tuple[str, str]]()
    for path in paths:
        name = str(path.relative_to(store.RUNS))
        text = path.read_text(encoding="utf-8")
        run = rename_keys(json.loads(text))
        digest, settings, parts = dump_new(path, run, sources)
        values += compare(rename_settings(old[name]["settings"]), settings.model_dump(mode="json"), name)
        values += compare([rename_part(part) for part in old[name]["parts"]], parts, name)
        suite = name.rpartition("/")[0]
        if run["made_from"]["settings"] == old[name]["digest"]:
            run["made_from"]["settings"] = digest
            counts[suite, "migrated"] += 1
            changed += digest != old[name]["digest"]
        else:
            counts[suite, "left"] += 1
        if options.write:
            path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    print(f"files: {len(paths)}")
    print(f"values compared: {values}, all equal")
    for state in ("migrated", "left"):
        suites = {suite: count for (suite, key), count in sorted(counts.items()) if key == state}
        print(f"{state}: {sum(suites.values())}", *(f"({suite}: {count})" for suite, count in suites.items()))
    print(f"checksums that changed: {changed}")


if __name__ == "__main__":
    main()
