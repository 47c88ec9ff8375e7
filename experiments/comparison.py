"""The paper's comparison: methods, or variants of a method, across learning rates and seeds on a suite of tasks.

    python -m experiments.comparison minilm --source /path/to/glue

This command computes the runs that are missing or outdated; several processes may share this work. The first seed
searches the learning rate of each configuration: it tries the middle candidate, or the one that `search_from` sets, and
its neighbors, then further candidates until all neighbors of the best candidate were tried. The other seeds use the
learning rate with the best validation mean. Intermediate files are kept in experiments/work, so that an interrupted run
resumes.
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
from experiments.plan import ComparisonSuite, find_suite, load_plan, resolve_settings
from experiments.store import Run, log
from hyperformer.core.errors import HyperFormerError
from hyperformer.settings import Settings


class Comparison:
    """The runs of one comparison suite.

    Args:
        name: The suite's name.
        suite: The suite.
        source: The folder to read the rows from; by default `data.source` of the suite's settings.
    """

    def __init__(self, name: str, suite: ComparisonSuite, source: str | None = None) -> None:
        self.name, self.suite = name, suite
        self.source = {"data.source": source} if source else {}

    @cached_property
    def settings(self) -> Settings:
        """The environment's settings with the overrides of the suite, but not of a configuration or run."""
        return resolve_settings(self.suite, **self.source)

    def prepare_inputs(self, seed: int) -> tuple[Path, Path]:
        """Return the folders of rows and of token ids of the runs of a seed; write them if they are missing."""
        from hyperformer.training import encode

        settings = self.settings
        rows = store.prepare_rows(self.suite, settings)
        if self.suite.train_rows is not None:
            rows = store.sample_train_rows(rows, list(settings.tasks.root), self.suite.train_rows, seed)
        tokens = store.WORK / "tokens" / f"{rows.name}-{settings.backbone.max_source_tokens}-{self.name}"
        return rows, store.write_folder_once(tokens, partial(encode, rows, settings.tasks, settings.backbone))

    def planned_runs(self) -> Iterator[tuple[str, str, float | None, int]]:
        """Yield (name, configuration, learning rate, seed) of every run; None is the chosen learning rate.

        Runs of the first seed with learning rates that the search does not reach are never computed.
        """
        first, *others = self.suite.seeds
        for configuration in self.suite.configurations:
            for learning_rate in self.suite.learning_rates:
                yield self.search_run(configuration, learning_rate), configuration, learning_rate, first
        for seed in others:
            for configuration in self.suite.configurations:
                yield self.seed_run(configuration, seed), configuration, None, seed

    def search_run(self, configuration: str, learning_rate: float) -> str:
        """Return the name of the first seed's run with a learning rate."""
        return f"{store.file_stem(configuration)}-{learning_rate:g}-{self.suite.seeds[0]}"

    def seed_run(self, configuration: str, seed: int) -> str:
        """Return the name of the run of a seed after the first, which uses the chosen learning rate."""
        return f"{store.file_stem(configuration)}-{seed}"

    def validation_means(self, configuration: str) -> dict[float, float]:
        """Return the first seed's validation mean at each learning rate that was tried."""
        runs = {
            learning_rate: store.read("comparison", self.name, self.search_run(configuration, learning_rate))
            for learning_rate in self.suite.learning_rates
        }
        return {learning_rate: run["validation"]["mean"] for learning_rate, run in runs.items() if run is not None}

    def learning_rates_to_try(self, configuration: str) -> list[float]:
        """Return the learning rates to try next; an empty list if the search is complete."""
        means, learning_rates = self.validation_means(configuration), self.suite.learning_rates

        def untried_near(index: int) -> list[float]:
            nearby = learning_rates[max(index - 1, 0) : index + 2]
            return [learning_rate for learning_rate in nearby if learning_rate not in means]

        first = self.suite.search_from.get(configuration, learning_rates[len(learning_rates) // 2])
        return untried_near(learning_rates.index(first)) or untried_near(
            learning_rates.index(max(means, key=lambda rate: means[rate]))
        )

    def chosen_learning_rate(self, configuration: str) -> float | None:
        """Return the learning rate with the best validation mean, or None if the search is incomplete."""
        means = self.validation_means(configuration)
        return None if self.learning_rates_to_try(configuration) else max(means, key=lambda rate: means[rate])

    def chosen_run(self, configuration: str) -> str | None:
        """Return the name of the first seed's run with the chosen learning rate; None if the search is incomplete."""
        learning_rate = self.chosen_learning_rate(configuration)
        return None if learning_rate is None else self.search_run(configuration, learning_rate)

    def checkpoint_path(self, name: str) -> Path:
        """Return the folder of a run's trained model."""
        return store.WORK / "checkpoints" / self.name / name

    def run(self) -> None:
        """Compute the runs that are missing or outdated; several processes may share this work."""

        def compute(name: str, configuration: str, learning_rate: float | None, seed: int) -> bool:
            chosen = self.chosen_learning_rate(configuration)
            if learning_rate is None:
                if chosen is not None:
                    self.compute(name, configuration, chosen, seed)
                return chosen is not None
            if learning_rate in [*self.learning_rates_to_try(configuration), *self.validation_means(configuration)]:
                self.compute(name, configuration, learning_rate, seed)
                return True
            return chosen is not None

        store.compute_missing("comparison", self.name, self.planned_runs(), compute)

    def run_settings(self, configuration: str, learning_rate: float, seed: int) -> Settings:
        """Return the settings of a run."""
        overrides = self.suite.configurations[configuration]
        run = {"seed": seed, "training.learning_rate": learning_rate}
        return resolve_settings(self.suite, **self.source, **overrides, **run)

    def digest(self, settings: Settings) -> str:
        """Return a checksum of the settings that a run's result depends on."""
        parts = (settings.tasks, settings.chosen_method, settings.training, settings.backbone.max_source_tokens)
        return store.digest([*parts, settings.seed, self.suite.test_rows])

    def fingerprint(self, settings: Settings, rows: Path) -> dict[str, str]:
        """Return the hashes of a run's settings, rows, backbone and code."""
        from hyperformer import backbones
        from hyperformer.core.files import folder_sha256

        return {
            "settings": self.digest(settings),
            "rows": folder_sha256(rows),
            "backbone": backbones.compute_checksum(settings.backbone),
            "code": folder_sha256(store.CODE),
        }

    def compute(self, name: str, configuration: str, learning_rate: float, seed: int) -> None:
        """Compute one run, unless it is up to date: copy an equal run, or train and score a model."""
        import torch

        from hyperformer.evaluation import average_tasks
        from hyperformer.training import remove_states, train

        settings = self.run_settings(configuration, learning_rate, seed)
        rows, tokens = self.prepare_inputs(seed)
        made_from = self.fingerprint(settings, rows)
        if store.is_current(store.read("comparison", self.name, name), made_from):
            log.info("%s/%s is up to date", self.name, name)
            return
        if equal := store.find_current("comparison", made_from):
            store.write({**equal, "configuration": configuration}, "comparison", self.name, name)
            log.info("%s/%s copied from an equal run: validation %.2f", self.name, name, equal["validation"]["mean"])
            return
        log.info("%s/%s", self.name, name)
        states = store.WORK / "states" / self.name / name
        is_resumed, start = states.is_dir(), time.process_time()  # CPU time, as other processes may use the machine
        tasks, backbone, method = settings.tasks, settings.backbone, settings.chosen_method
        write, history = train(rows, tokens, tasks, backbone, method, settings.training, seed, states)
        gpu = torch.cuda.is_available()
        # Waiting for a shared GPU would count as CPU time.
        cpu_seconds = None if is_resumed or gpu else round(time.process_time() - start)
        store.write_folder(self.checkpoint_path(name), write)
        remove_states(states)
        best = max(history, key=lambda line: line["mean"])
        test = self.score(self.checkpoint_path(name), rows, settings)
        run = {
            "made_from": made_from,
            "configuration": configuration,
            "learning_rate": learning_rate,
            "seed": seed,
            "steps": history[-1]["step"],
            "batch_size": settings.training.batch_size,
            "validation": {metric: round(value, 3) for metric, value in best.items() if metric != "diagnostics"},
            "diagnostics": {name: float(f"{value:.3g}") for name, value in history[-1].get("diagnostics", {}).items()},
            "by_step": {str(line["step"]): round(line["mean"], 3) for line in history},
            "test": test,
            "cpu_seconds": cpu_seconds,
            "device": torch.cuda.get_device_name()
            if gpu
            else f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
            **describe_model(self.checkpoint_path(name), settings),
        }
        store.write(run, "comparison", self.name, name)
        log.info("%s/%s: validation %.2f, test %.2f", self.name, name, best["mean"], average_tasks(test))

    def score(self, checkpoint: Path, rows: Path, settings: Settings) -> dict[str, dict[str, float]]:
        """Return a checkpoint's metrics by task, on the first `test_rows` test rows of each task."""
        from hyperformer.data.storage import read_first_rows
        from hyperformer.evaluation import evaluate
        from hyperformer.model.inference import move_to_gpu
        from hyperformer.model.task_models import TaskModels

        model = move_to_gpu(TaskModels.from_pretrained(checkpoint))
        answer = partial(model.answer, settings=settings.evaluation)
        scores = {}
        for name, task in model.tasks.items():
            metrics, _ = evaluate(answer, task, read_first_rows(rows, name, "test", self.suite.test_rows))
            scores[name] = {metric: round(value, 3) for metric, value in metrics.items()}
        return scores


def describe_model(checkpoint: Path, settings: Settings) -> Run:
    """Return the parameter counts of a trained model and, if its method has task embeddings, these embeddings."""
    from safetensors.torch import load_file

    from hyperformer.model.counts import count_parameters

    description: Run = {"parameters": count_parameters(settings.backbone, settings.chosen_method, settings.tasks)}
    weights = checkpoint / "trained.safetensors"
    embeddings = load_file(weights).get("method.task_embedding.weight") if weights.is_file() else None
    if embeddings is not None:
        vectors = zip(settings.tasks.root, embeddings, strict=True)
        description["embeddings"] = {task: [round(x, 3) for x in vector.tolist()] for task, vector in vectors}
    return description


def parse_arguments(description: str | None, names: Any) -> argparse.Namespace:
    """Parse the command line: the name of a suite and, optionally, the folder to read its rows from."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help=f"one of {', '.join(names)}")
    parser.add_argument("--source", help="folder of the rows; by default the folder of the environment")
    return parser.parse_args()


def main() -> None:
    """Compute the runs of the suite that the command line names."""
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hyperformer").setLevel(logging.INFO)
    try:
        suites = load_plan().comparison
        options = parse_arguments(__doc__, suites)
        Comparison(options.suite, find_suite(suites, options.suite), options.source).run()
    except HyperFormerError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
