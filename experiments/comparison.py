"""The paper's comparison: methods, or ways of one, over rates and seeds on a suite of tasks.

    python -m experiments.comparison minilm --source /path/to/glue

computes the cells that are missing; several such processes share them. Of each contender, rates are tried with the
first seed: the middle one and its neighbours, then further ones until the best has tried neighbours. The other seeds
take the rate with the best validation mean. What is on the way is kept under experiments/work, so that a stopped run
goes on.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from experiments import store
from experiments.plan import ComparisonSuite, named, plan, settings_of
from experiments.store import Cell, log
from hyperformer.config import Settings
from hyperformer.types import HyperFormerError


class Comparison:
    """One suite's cells: what they need, and how they are made.

    Args:
        source: where the rows are, if not where the environment says.
    """

    def __init__(self, name: str, suite: ComparisonSuite, source: str | None = None) -> None:
        self.name, self.suite = name, suite
        self.source = {"data.source": source} if source else {}

    @cached_property
    def settings(self) -> Settings:
        """The environment's with the suite's changes; a contender's own, rate and seed are each cell's."""
        return settings_of(self.suite, **self.source)

    @cached_property
    def inputs(self) -> tuple[Path, Path]:
        """The folders of rows and of token ids."""
        from hyperformer.training import encode

        settings = self.settings
        rows = store.rows_of(self.suite, settings)
        tokens = store.WORK / "tokens" / f"{rows.name}-{settings.backbone.max_source_tokens}-{self.name}"
        return rows, store.made_once(tokens, partial(encode, rows, settings.tasks, settings.backbone))

    def wanted(self) -> Iterator[tuple[str, str, float | None, int]]:
        """(cell, contender, rate, seed) of every cell; a rate that is still to be chosen is None.

        Of the first seed's, those of rates that the search does not come to stay unmade.
        """
        first, *others = self.suite.seeds
        for contender in self.suite.contenders:
            for rate in self.suite.rates:
                yield self.tried(contender, rate), contender, rate, first
        for seed in others:
            for contender in self.suite.contenders:
                yield self.other(contender, seed), contender, None, seed

    def tried(self, contender: str, rate: float) -> str:
        """The cell of a rate that was tried."""
        return f"{store.plain(contender)}-{rate:g}-{self.suite.seeds[0]}"

    def other(self, contender: str, seed: int) -> str:
        """The cell of another seed, with the chosen rate."""
        return f"{store.plain(contender)}-{seed}"

    def found_by_rate(self, contender: str) -> dict[float, float]:
        """Rate → validation mean, of the rates that were tried."""
        found = {rate: store.read("comparison", self.name, self.tried(contender, rate)) for rate in self.suite.rates}
        return {rate: cell["validation"]["mean"] for rate, cell in found.items() if cell is not None}

    def rates_to_try(self, contender: str) -> list[float]:
        """The rates that are still to be tried before one can be chosen."""
        found, rates = self.found_by_rate(contender), self.suite.rates

        def about(place: int) -> list[float]:
            return [rate for rate in rates[max(place - 1, 0) : place + 2] if rate not in found]

        return about(len(rates) // 2) or about(rates.index(max(found, key=lambda rate: found[rate])))

    def chosen_rate(self, contender: str) -> float | None:
        """The rate whose run with the first seed has the best validation mean; None while one is to be tried."""
        found = self.found_by_rate(contender)
        return None if self.rates_to_try(contender) else max(found, key=lambda rate: found[rate])

    def chosen(self, contender: str) -> str | None:
        """The first seed's cell with the chosen rate."""
        rate = self.chosen_rate(contender)
        return None if rate is None else self.tried(contender, rate)

    def checkpoint(self, cell: str) -> Path:
        """Where a cell's trained model is."""
        return store.WORK / "checkpoints" / self.name / cell

    def run(self) -> None:
        """Makes the missing cells, in turns with other processes that do the same."""

        def make(cell: str, contender: str, rate: float | None, seed: int) -> bool:
            chosen = self.chosen_rate(contender)
            if rate is None:
                if chosen is not None:
                    self.make(cell, contender, chosen, seed)
                return chosen is not None
            if rate in [*self.rates_to_try(contender), *self.found_by_rate(contender)]:
                self.make(cell, contender, rate, seed)
                return True
            return chosen is not None

        store.shared_out("comparison", self.name, self.wanted(), make)

    def cell_settings(self, contender: str, rate: float, seed: int) -> Settings:
        """The settings that a cell is made by."""
        own = self.suite.contenders[contender]
        return settings_of(self.suite, **self.source, **own, **{"seed": seed, "training.learning_rate": rate})

    def digest(self, settings: Settings) -> str:
        """A checksum of what of a cell's settings its result depends on."""
        parts = (settings.tasks, settings.chosen_method, settings.training, settings.backbone.max_source_tokens)
        return store.digest([*parts, settings.seed, self.suite.test_rows])

    def fingerprint(self, settings: Settings, rows: Path) -> dict[str, str]:
        """What a cell is made from: the hashes of its settings, rows, backbone and code."""
        from hyperformer import backbones
        from hyperformer.manifest import folder_sha256

        return {
            "settings": self.digest(settings),
            "rows": folder_sha256(rows),
            "backbone": backbones.checksum(settings.backbone),
            "code": folder_sha256(store.CODE),
        }

    def make(self, cell: str, contender: str, rate: float, seed: int) -> None:
        """Trains and scores one cell, unless it stands."""
        import torch

        from hyperformer.evaluation import mean_of
        from hyperformer.training import remove_states, train

        settings = self.cell_settings(contender, rate, seed)
        rows, tokens = self.inputs
        made_from = self.fingerprint(settings, rows)
        if store.stands(store.read("comparison", self.name, cell), made_from):
            log.info("%s/%s is there", self.name, cell)
            return
        if other := store.alike("comparison", made_from):
            store.write({**other, "contender": contender}, "comparison", self.name, cell)
            log.info("%s/%s is another suite's: validation %.2f", self.name, cell, other["validation"]["mean"])
            return
        log.info("%s/%s", self.name, cell)
        states = store.WORK / "states" / self.name / cell
        resumed, began = states.is_dir(), time.process_time()  # other work on the machine is not counted
        tasks, backbone, chosen = settings.tasks, settings.backbone, settings.chosen_method
        write, history = train(rows, tokens, tasks, backbone, chosen, settings.training, seed, states)
        gpu = torch.cuda.is_available()
        # waiting for a GPU that others use too counts as the process's own time
        seconds = None if resumed or gpu else round(time.process_time() - began)
        store.folder(self.checkpoint(cell), write)
        remove_states(states)
        best = max(history, key=lambda line: line["mean"])
        test = self.scores(self.checkpoint(cell), rows, settings)
        found = {
            "made_from": made_from,
            "contender": contender,
            "learning_rate": rate,
            "seed": seed,
            "steps": settings.training.steps,
            "batch_size": settings.training.batch_size,
            "validation": {name: round(value, 3) for name, value in best.items()},
            "by_step": {str(line["step"]): round(line["mean"], 3) for line in history},
            "test": test,
            "processor_seconds": seconds,
            "processor": torch.cuda.get_device_name()
            if gpu
            else f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
            **described(self.checkpoint(cell), settings),
        }
        store.write(found, "comparison", self.name, cell)
        log.info("%s/%s: validation %.2f, test %.2f", self.name, cell, best["mean"], mean_of(test))

    def scores(self, checkpoint: Path, rows: Path, settings: Settings) -> dict[str, dict[str, float]]:
        """A checkpoint's metrics of every task on its first test rows."""
        from hyperformer.data import first_rows
        from hyperformer.evaluation import evaluate
        from hyperformer.model import MultiTaskModel, accelerated

        model = accelerated(MultiTaskModel.from_pretrained(checkpoint))
        answer = partial(model.answer, settings=settings.evaluation)
        found = {}
        for name, task in model.tasks.items():
            metrics, _ = evaluate(answer, task, first_rows(rows, name, "test", self.suite.test_rows))
            found[name] = {kind: round(value, 3) for kind, value in metrics.items()}
        return found


def described(checkpoint: Path, settings: Settings) -> Cell:
    """What a trained model has: its parameters, and the embeddings of its tasks, if there are any."""
    from safetensors.torch import load_file

    from hyperformer.model import parameter_counts

    found: Cell = {"parameters": parameter_counts(settings.backbone, settings.chosen_method, settings.tasks)}
    single = checkpoint / "trained.safetensors"
    embeddings = load_file(single).get("method.task_embedding.weight") if single.is_file() else None
    if embeddings is not None:
        names = settings.tasks.root
        found["embeddings"] = {n: [round(x, 3) for x in e.tolist()] for n, e in zip(names, embeddings, strict=True)}
    return found


def arguments(description: str | None, names: Any) -> argparse.Namespace:
    """A suite, and where its rows are."""
    given = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("suite", help=f"one of {', '.join(names)}")
    given.add_argument("--source", help="the folder of the rows, in place of where the environment says")
    return given.parse_args()


def main() -> None:
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hyperformer").setLevel(logging.INFO)
    try:
        suites = plan().comparison
        given = arguments(__doc__, suites)
        Comparison(given.suite, named(suites, given.suite), given.source).run()
    except HyperFormerError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
