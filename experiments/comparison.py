"""The paper's comparison: every method over rates and seeds on a suite of tasks; a small JSON a cell.

    python experiments/comparison.py minilm --source /path/to/glue

computes the cells that are missing; several such processes share them.

Of each method, every rate is tried with the first seed; the other seeds take the rate with the best validation mean.
A cell stands while its settings, rows and backbone are the same; which code made it is written in it. What is on the
way is kept under experiments/work, so that a stopped run goes on. experiments/tables.py makes tables of cells.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hyperformer.config import ConfigurationError, Settings, check, nearest
from hyperformer.types import HyperFormerError

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
PLAN, CELLS, WORK = HERE / "comparison.yaml", HERE / "cells", HERE / "work"
log = logging.getLogger("hyperformer.comparison")


class Suite(BaseModel):
    """What is compared on one set of tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    changes: dict[str, Any] = {}
    """Settings of the environment that are other here, by their dotted names."""
    methods: Annotated[list[str], Field(min_length=1)]
    rates: Annotated[list[float], Field(min_length=1)]
    """Learning rates, the same for all methods."""
    seeds: Annotated[list[int], Field(min_length=1)]
    test_rows: Annotated[int, Field(gt=0)]
    """At most so many test rows a task are scored, the first ones."""


def suites(path: Path = PLAN) -> dict[str, Suite]:
    """The plan's suites by name.

    Raises:
        ConfigurationError: the plan has a fault; it is named.
    """
    found = {}
    for name, given in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        try:
            found[name] = Suite(**given)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, (name, *fault["loc"])))
            raise ConfigurationError(f"{path}, {where}: {fault['msg']}, got {fault['input']!r}; mend it") from None
    return found


def settings_of(suite: Suite, source: str | None = None, **changes: Any) -> Settings:
    """The environment's settings with the suite's changes, and more of them by their dotted names."""
    from omegaconf import OmegaConf

    from pipelines.settings import ConfigLoader

    wanted = {**suite.changes, **changes, **({"data.source": source} if source else {})}
    given = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}" for key, value in wanted.items()]))
    loader = ConfigLoader(
        str(ROOT / "conf"), env=suite.environment, base_env="base", default_run_env="local", runtime_params=given
    )
    return check(loader["parameters"])


def fingerprint(settings: Settings, rows: Path) -> dict[str, str]:
    """What a cell is made from: the hashes of its settings, rows, backbone and code."""
    from hyperformer import backbones
    from hyperformer.manifest import folder_sha256
    from hyperformer.training.states import work_of

    parts = {"tasks": settings.tasks, "method": settings.chosen_method, "training": settings.training}
    work = work_of(parts, {}, settings.seed)
    code = work.pop("code")
    work["max_source_tokens"] = settings.backbone.max_source_tokens
    return {
        "settings": hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest(),
        "rows": folder_sha256(rows),
        "backbone": backbones.checksum(settings.backbone),
        "code": code,
    }


class Comparison:
    """One suite's cells: what they need, and how they are made."""

    def __init__(self, name: str, suite: Suite, source: str | None = None) -> None:
        self.name, self.suite, self.source = name, suite, source
        self.cells, self.work = CELLS / name, WORK / name

    @cached_property
    def inputs(self) -> tuple[Path, Path]:
        """The folders of rows and of token ids, made where they are missing."""
        from hyperformer.data import prepare, write_rows
        from hyperformer.embedded.suite import language_rows
        from hyperformer.tasks import make
        from hyperformer.training import encode

        settings = settings_of(self.suite, self.source)
        chosen = [settings.tasks, settings.data, settings.embedded, settings.backbone]
        key = hashlib.sha256(repr([part.model_dump() for part in chosen]).encode()).hexdigest()[:16]
        rows, tokens, embedded = (self.work / f"{kind}-{key}" for kind in ("rows", "tokens", "embedded"))
        if not rows.is_dir():
            written(embedded, language_rows(settings.tasks, settings.data, settings.embedded, 0))
            written(rows, write_rows(prepare(make(settings.tasks), settings.data, embedded, 0)[0]))
        if not tokens.is_dir():
            written(tokens, encode(rows, settings.tasks, settings.backbone))
        return rows, tokens

    def wanted(self) -> Iterator[tuple[str, str, float | None, int]]:
        """(cell, method, rate, seed) of every cell; a rate that is still to be chosen is None."""
        first, *others = self.suite.seeds
        for method in self.suite.methods:
            for rate in self.suite.rates:
                yield f"{method}-{rate:g}-{first}", method, rate, first
        for seed in others:
            for method in self.suite.methods:
                yield f"{method}-{seed}", method, None, seed

    def run(self) -> None:
        """Makes the missing cells, in turns with other processes that do the same."""
        missing = list(self.wanted())
        while missing:
            later = []
            for cell, method, rate, seed in missing:
                with claimed(self.work / "claims" / cell) as mine:
                    chosen = self.chosen_rate(method) if rate is None else rate
                    if mine and chosen is not None:
                        self.make(cell, method, chosen, seed)
                    else:
                        later.append((cell, method, rate, seed))
            if later == missing:
                time.sleep(20)
            missing = later

    def chosen_rate(self, method: str) -> float | None:
        """The rate whose run with the first seed has the best validation mean; None while one is missing."""
        found = {rate: self.read(f"{method}-{rate:g}-{self.suite.seeds[0]}") for rate in self.suite.rates}
        if any(cell is None for cell in found.values()):
            return None
        return max(found, key=lambda rate: found[rate]["validation"]["mean"])  # type: ignore[index]

    def read(self, cell: str) -> dict[str, Any] | None:
        path = self.cells / f"{cell}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def make(self, cell: str, method: str, rate: float, seed: int) -> None:
        """Trains and scores one cell, unless it stands."""
        import torch

        from hyperformer import evaluation
        from hyperformer.data import first_rows
        from hyperformer.model import MultiTaskModel, parameter_counts
        from hyperformer.training import train

        settings = settings_of(
            self.suite, self.source, method=method, seed=seed, **{"training.learning_rate": f"{rate:.6f}"}
        )
        rows, tokens = self.inputs
        made_from, there = fingerprint(settings, rows), self.read(cell)
        if there is not None and {**there["made_from"], "code": ""} == {**made_from, "code": ""}:
            log.info("%s/%s is there", self.name, cell)
            return
        log.info("%s/%s", self.name, cell)
        states, checkpoint = self.work / "states" / cell, self.work / "checkpoints" / cell
        resumed = states.is_dir()
        began = time.monotonic()
        write, history = train(
            rows,
            tokens,
            settings.tasks,
            settings.backbone,
            settings.chosen_method,
            settings.training,
            seed,
            states,
        )
        seconds = time.monotonic() - began
        written(checkpoint, write)
        model = MultiTaskModel.from_pretrained(checkpoint)
        answer = partial(model.answer, settings=settings.evaluation)
        test = {
            name: evaluation.evaluate(answer, task, first_rows(rows, name, "test", self.suite.test_rows))[0]
            for name, task in model.tasks.items()
        }
        best = max(history, key=lambda line: line["mean"])
        found = {
            "made_from": made_from,
            "method": method,
            "learning_rate": rate,
            "seed": seed,
            "steps": settings.training.steps,
            "batch_size": settings.training.batch_size,
            "validation": {name: round(value, 3) for name, value in best.items()},
            "test": {name: {kind: round(value, 3) for kind, value in one.items()} for name, one in test.items()},
            "parameters": parameter_counts(settings.backbone, settings.chosen_method, settings.tasks),
            "seconds": None if resumed else round(seconds),
            "processor": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        }
        self.cells.mkdir(parents=True, exist_ok=True)
        beside = self.cells / f".{cell}.new"
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.cells / f"{cell}.json")
        log.info("%s/%s: validation %.2f, test %.2f", self.name, cell, best["mean"], evaluation.mean_of(test))


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether what `path` stands for is this process's alone inside; it ends with the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def written(folder: Path, write: Any) -> None:
    """Has `write` fill a folder beside, which then takes its place."""
    from pipelines.datasets import FolderDataset

    FolderDataset(str(folder)).save(write)


def arguments(names: list[str]) -> argparse.Namespace:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("suite", help=f"one of {', '.join(names)}")
    given.add_argument("--source", help="where the rows are, in place of the environment's data.source")
    return given.parse_args()


def main() -> None:
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hyperformer").setLevel(logging.INFO)
    try:
        known = suites()
        given = arguments(list(known))
        if given.suite not in known:
            raise ConfigurationError(f"unknown suite {given.suite!r}; {nearest(given.suite, known)}")
        Comparison(given.suite, known[given.suite], given.source).run()
    except HyperFormerError as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main()
