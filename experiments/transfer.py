"""Few-shot transfer: the trained models of a comparison on new tasks, by how many rows they are given.

    python -m experiments.transfer minilm --source /path/to/transfer

computes the cells that are missing, one for each task, contender and number of samples; several such processes share
them. The comparison's own cells with the first seed must have been computed here: their models are what is adapted.
Beside them stands logistic regression on the same samples: on words, and on the frozen backbone's embeddings.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from experiments import store
from experiments.comparison import Comparison, arguments
from experiments.plan import Adapted, TransferSuite, named, plan, settings_of
from experiments.store import Cell, log
from hyperformer.config import Settings, Tasks
from hyperformer.types import HyperFormerError

REGRESSION = "regression"


class Transfer:
    """One suite's cells: what they need, and how they are made.

    Args:
        comparison: whose models are adapted.
        source: the folder with the tasks' folders of rows, if not where the environment says.
    """

    def __init__(self, name: str, suite: TransferSuite, comparison: Comparison, source: str | None = None) -> None:
        self.name, self.suite, self.comparison = name, suite, comparison
        self.source: dict[str, Any] = {}
        for task in suite.tasks if source else ():
            self.source[f"tasks.{task}.source"] = {"path": f"{source}/{task}", "name": None}

    @cached_property
    def settings(self) -> Settings:
        """The environment's, with the suite's tasks alone."""
        found = settings_of(self.suite, **self.source)
        return found.model_copy(update={"tasks": Tasks({name: found.tasks.root[name] for name in self.suite.tasks})})

    @cached_property
    def rows(self) -> Path:
        """The folder of checked rows."""
        return store.rows_of(self.suite, self.settings)

    def wanted(self) -> Iterator[tuple[str, str, str, int]]:
        """(cell, task, contender, samples) of every cell."""
        contenders = [*self.suite.contenders, REGRESSION]
        for task, contender, samples in itertools.product(self.suite.tasks, contenders, self.suite.samples):
            yield cell_of(task, contender, samples), task, contender, samples

    def run(self) -> None:
        """Makes the missing cells, in turns with other processes that do the same."""
        store.shared_out("transfer", self.name, self.wanted(), self.make)

    def make(self, cell: str, task: str, contender: str, samples: int) -> bool:
        """Measures the seeds of one cell that are missing, one after another."""
        chosen = self.suite.contenders.get(contender)
        checkpoint = self.checkpoint(chosen) if chosen else None
        made_from = self.fingerprint(task, chosen, samples, checkpoint)
        there = store.read("transfer", self.name, cell)
        found: Cell = {"made_from": made_from, "task": task, "contender": contender, "samples": samples, "runs": []}
        if there is not None and store.stands(there, made_from):
            found = there
        for seed in self.suite.seeds:
            if seed in [run["seed"] for run in found["runs"]]:
                continue
            began = time.process_time()
            if chosen is None or checkpoint is None:
                run = self.regressed(task, samples, seed)
            else:
                run = self.adapted(cell, task, chosen, samples, seed, checkpoint)
            found["runs"].append({"seed": seed, **run, "processor_seconds": round(time.process_time() - began)})
            store.write(found, "transfer", self.name, cell)
            log.info("%s/%s, seed %d: %s", self.name, cell, seed, run)
        return True

    def checkpoint(self, contender: Adapted) -> Path:
        """The trained model that a contender adapts.

        Raises:
            HyperFormerError: it was not trained here yet.
        """
        cell = self.comparison.chosen(contender.trained)
        found = self.comparison.checkpoint(cell) if cell else None
        if cell is None or found is None or not found.is_dir():
            there = store.path_of("comparison", self.comparison.name, cell) if cell else None
            first = f"remove {there}, which stands without it, and " if there else ""
            raise HyperFormerError(
                f"the model of {contender.trained} is missing, expected in {found or store.WORK}; {first}run "
                f"python -m experiments.comparison {self.comparison.name} first"
            )
        return found

    def fingerprint(
        self, task: str, contender: Adapted | None, samples: int, checkpoint: Path | None
    ) -> dict[str, str]:
        """What a cell is made from: the hashes of its settings, rows, trained model or backbone, and code."""
        from hyperformer import backbones
        from hyperformer.manifest import files_sha256, folder_sha256

        alone = Tasks({task: self.settings.tasks.root[task]})
        how = [contender, self.settings.transfer] if contender else []
        return {
            "settings": store.digest([alone, *how, samples, self.suite.test_rows]),
            "rows": folder_sha256(self.rows / task),
            "model": files_sha256(checkpoint.glob("*.safetensors"))
            if checkpoint
            else backbones.checksum(self.comparison.settings.backbone),
            "code": folder_sha256(store.CODE),
        }

    def adapted(self, cell: str, task: str, contender: Adapted, samples: int, seed: int, checkpoint: Path) -> Cell:
        """What a trained model reaches on a task after adapting to some samples of it, and where it started from."""
        from hyperformer.evaluation import evaluate
        from hyperformer.model import MultiTaskModel, accelerated
        from hyperformer.training import adapt

        settings = self.settings.transfer.model_copy(
            update={
                "checkpoint": str(checkpoint),
                "samples": samples,
                "initialize_from": contender.initialize_from,
                "train": contender.train,
            }
        )
        alone = Tasks({task: self.settings.tasks.root[task]})
        place = store.WORK / "adapted" / self.name / f"{cell}-{seed}"
        write, starts = adapt(self.rows, alone, settings, seed, place)
        model = accelerated(MultiTaskModel.from_pretrained(store.folder(place / "checkpoint", write)))
        answer = partial(model.answer, settings=self.settings.evaluation)
        metrics, _ = evaluate(answer, model.tasks[task], self.test(task))
        shutil.rmtree(place)
        return {"started_from": starts[task], "test": round(metrics["mean"], 3)}

    def regressed(self, task: str, samples: int, seed: int) -> Cell:
        """What logistic regression reaches from the same samples."""
        from hyperformer.data import drawn_rows
        from hyperformer.evaluation import baselines
        from hyperformer.tasks import make

        one = make(self.settings.tasks)[task]
        train = drawn_rows(self.rows, task, "train", samples, seed)
        found = baselines(one, train, self.test(task), self.embed, seed)
        return {"test": {name: round(metrics["mean"], 3) for name, metrics in found.items()}}

    @cached_property
    def embed(self) -> Any:
        """What gives the frozen backbone's embeddings; a text that was seen before is not embedded anew."""
        import numpy as np

        from hyperformer.model import embeddings

        settings = self.comparison.settings
        embed = embeddings(settings.backbone, settings.evaluation.batch_size)
        seen: dict[str, Any] = {}

        def remembered(texts: Sequence[str]) -> Any:
            new = sorted(set(texts) - seen.keys())
            seen.update(zip(new, embed(new) if new else [], strict=True))
            return np.stack([seen[text] for text in texts])

        return remembered

    def test(self, task: str) -> Any:
        """The test rows that are scored."""
        from hyperformer.data import first_rows

        return first_rows(self.rows, task, "test", self.suite.test_rows)


def cell_of(task: str, contender: str, samples: int) -> str:
    """The name of a cell."""
    return f"{task}-{store.plain(contender)}-{samples}"


def main() -> None:
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hyperformer").setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    try:
        whole = plan()
        given = arguments(__doc__, whole.transfer)
        suite = named(whole.transfer, given.suite)
        comparison = Comparison(suite.comparison, named(whole.comparison, suite.comparison))
        Transfer(given.suite, suite, comparison, given.source).run()
    except HyperFormerError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
