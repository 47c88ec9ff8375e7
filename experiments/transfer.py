"""Few-shot transfer: the trained models of a comparison, adapted to new tasks with few training rows.

    python -m experiments.transfer minilm --source /path/to/transfer

This command computes the runs that are missing or outdated, one for each task, configuration and number of samples;
several processes may share this work. It adapts the models of the comparison's first seed, which must have been trained
on this machine. The baselines (`evaluate_baselines`) are the majority label, and logistic regression on TF-IDF, on
TF-IDF with the overlap of two texts, and on the frozen backbone's embeddings. They are fitted to the training rows that
the models are adapted to. The strength of their regularization is chosen on the validation rows, which the models do
not use.
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
from experiments.comparison import Comparison, parse_arguments
from experiments.plan import Adaptation, TransferSuite, find_suite, load_plan, resolve_settings
from experiments.store import Run, log
from hyperformer.core.errors import HyperFormerError
from hyperformer.settings import Settings, Tasks

REGRESSION = "regression"


class Transfer:
    """The runs of one transfer suite.

    Args:
        name: The suite's name.
        suite: The suite.
        comparison: The comparison whose models are adapted.
        source: The folder with one folder of rows per task; by default each task's source in the suite's settings.
    """

    def __init__(self, name: str, suite: TransferSuite, comparison: Comparison, source: str | None = None) -> None:
        self.name, self.suite, self.comparison = name, suite, comparison
        self.source: dict[str, Any] = {}
        for task in suite.tasks if source else ():
            self.source[f"tasks.{task}.source"] = {"path": f"{source}/{task}", "name": None}

    @cached_property
    def settings(self) -> Settings:
        """The environment's settings with the overrides of the suite, and with only the suite's tasks."""
        settings = resolve_settings(self.suite, **self.source)
        tasks = Tasks({name: settings.tasks.root[name] for name in self.suite.tasks})
        return settings.model_copy(update={"tasks": tasks})

    @cached_property
    def rows(self) -> Path:
        """The folder of prepared rows."""
        return store.prepare_rows(self.suite, self.settings)

    def planned_runs(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield (name, task, configuration, samples) of every run; `REGRESSION` stands for the baselines."""
        configurations = [*self.suite.configurations, REGRESSION]
        for task, configuration, samples in itertools.product(self.suite.tasks, configurations, self.suite.samples):
            yield run_name(task, configuration, samples), task, configuration, samples

    def run(self) -> None:
        """Compute the runs that are missing or outdated; several processes may share this work."""
        store.compute_missing("transfer", self.name, self.planned_runs(), self.compute)

    def compute(self, name: str, task: str, configuration: str, samples: int) -> bool:
        """Measure the missing seeds of a run, or all if it is outdated; return True, as runs need no others."""
        adaptation = self.suite.configurations.get(configuration)
        checkpoint = self.checkpoint_path(adaptation) if adaptation else None
        made_from = self.fingerprint(task, adaptation, samples, checkpoint)
        recorded = store.read("transfer", self.name, name)
        run: Run = {
            "made_from": made_from,
            "task": task,
            "configuration": configuration,
            "samples": samples,
            "seeds": [],
        }
        if recorded is not None and store.is_current(recorded, made_from):
            run = recorded
        for seed in self.suite.seeds:
            if seed in [result["seed"] for result in run["seeds"]]:
                continue
            start = time.process_time()
            if adaptation is None or checkpoint is None:
                result = self.score_regression(task, samples, seed)
            else:
                result = self.score_adaptation(name, task, adaptation, samples, seed, checkpoint)
            run["seeds"].append({"seed": seed, **result, "cpu_seconds": round(time.process_time() - start)})
            store.write(run, "transfer", self.name, name)
            log.info("%s/%s, seed %d: %s", self.name, name, seed, result)
        return True

    def checkpoint_path(self, adaptation: Adaptation) -> Path:
        """Return the folder of the trained model that is adapted.

        Raises:
            HyperFormerError: the trained model is not on this machine.
        """
        name = self.comparison.chosen_run(adaptation.model)
        checkpoint = self.comparison.checkpoint_path(name) if name else None
        if name is None or checkpoint is None or not checkpoint.is_dir():
            run = store.path_of("comparison", self.comparison.name, name) if name else None
            advice = f"Remove {run}, whose model is not on this machine, and run" if run else "Run"
            raise HyperFormerError(
                f"the trained model of {adaptation.model} is missing; expected it in {checkpoint or store.WORK}. "
                f"{advice} python -m experiments.comparison {self.comparison.name}."
            )
        return checkpoint

    def fingerprint(
        self, task: str, adaptation: Adaptation | None, samples: int, checkpoint: Path | None
    ) -> dict[str, str]:
        """Return the hashes of a run's settings, rows, trained model or backbone, and code."""
        from hyperformer import backbones
        from hyperformer.core.files import files_sha256, folder_sha256

        return {
            "settings": self.digest(task, adaptation, samples),
            "rows": folder_sha256(self.rows / task),
            "model": files_sha256(checkpoint.glob("*.safetensors"))
            if checkpoint
            else backbones.compute_checksum(self.comparison.settings.backbone),
            "code": folder_sha256(store.CODE),
        }

    def digest(self, task: str, adaptation: Adaptation | None, samples: int) -> str:
        """Return a checksum of the settings that a run's result depends on."""
        tasks = Tasks({task: self.settings.tasks.root[task]})
        parts = [adaptation, self.settings.transfer] if adaptation else []
        return store.digest([tasks, *parts, samples, self.suite.test_rows])

    def score_adaptation(
        self, name: str, task: str, adaptation: Adaptation, samples: int, seed: int, checkpoint: Path
    ) -> Run:
        """Adapt a trained model to samples of a task; return its mean test metric and its initialization."""
        from hyperformer.evaluation import evaluate
        from hyperformer.model.inference import move_to_gpu
        from hyperformer.model.task_models import TaskModels
        from hyperformer.training import adapt

        settings = self.settings.transfer.model_copy(
            update={
                "checkpoint": str(checkpoint),
                "samples": samples,
                "initialize_from": adaptation.initialize_from,
                "train": adaptation.train,
            }
        )
        tasks = Tasks({task: self.settings.tasks.root[task]})
        folder = store.WORK / "adapted" / self.name / f"{name}-{seed}"
        write, initializations = adapt(self.rows, tasks, settings, seed, folder)
        model = move_to_gpu(TaskModels.from_pretrained(store.write_folder(folder / "checkpoint", write)))
        answer = partial(model.answer, settings=self.settings.evaluation)
        metrics, _ = evaluate(answer, model.tasks[task], self.test_rows(task))
        shutil.rmtree(folder)
        return {"started_from": initializations[task], "test": round(metrics["mean"], 3)}

    def score_regression(self, task: str, samples: int, seed: int) -> Run:
        """Return the mean test metric of each baseline that is not left out, and the notes on the others.

        The baselines are fitted to the rows that the models are adapted to.
        """
        from hyperformer.baselines import MAX_VALIDATION_ROWS, evaluate_baselines
        from hyperformer.data.storage import read_first_rows, sample_rows
        from hyperformer.tasks import make_tasks

        train = sample_rows(self.rows, task, "train", samples, seed)
        validation = read_first_rows(self.rows, task, "validation", MAX_VALIDATION_ROWS)
        scores, notes = evaluate_baselines(
            make_tasks(self.settings.tasks)[task], train, validation, self.test_rows(task), self.embed
        )
        test = {name: round(metrics["mean"], 3) for name, metrics in scores["test"].items()}
        return {"test": test, "notes": notes}

    @cached_property
    def embed(self) -> Any:
        """A function that maps texts to the frozen backbone's embeddings, and caches the embedding of each text."""
        import numpy as np

        from hyperformer.model.inference import make_embedder

        settings = self.comparison.settings
        embed = make_embedder(settings.backbone, settings.evaluation.batch_size)
        cache: dict[str, Any] = {}

        def embed_cached(texts: Sequence[str]) -> Any:
            new = sorted(set(texts) - cache.keys())
            cache.update(zip(new, embed(new) if new else [], strict=True))
            return np.stack([cache[text] for text in texts])

        return embed_cached

    def test_rows(self, task: str) -> Any:
        """Return the test rows of a task that are scored."""
        from hyperformer.data.storage import read_first_rows

        return read_first_rows(self.rows, task, "test", self.suite.test_rows)


def run_name(task: str, configuration: str, samples: int) -> str:
    """Return the name of a run."""
    return f"{task}-{store.file_stem(configuration)}-{samples}"


def main() -> None:
    """Compute the runs of the suite that the command line names."""
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hyperformer").setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    try:
        plan = load_plan()
        options = parse_arguments(__doc__, plan.transfer)
        suite = find_suite(plan.transfer, options.suite)
        comparison = Comparison(suite.comparison, find_suite(plan.comparison, suite.comparison))
        Transfer(options.suite, suite, comparison, options.source).run()
    except HyperFormerError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
