"""Baselines are computed again only if something that they depend on has changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import grimp
import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray
from toys import make_pair_task

from hyperformer import baselines
from hyperformer.baselines.all_tasks import CODE_PATHS
from hyperformer.data.storage import write_rows
from hyperformer.settings import Tasks
from hyperformer.tasks import Task, make_tasks

Results = dict[str, dict[str, Any]]
ORIGIN = {"backbone": {"path": "b", "sha256": "0123"}, "code": "4567"}
TASKS = ("first_task", "second_task")


def make_split(count: int, seed: int) -> Dataset:
    rng = Random(seed)
    texts = [" ".join(rng.choices("red green blue white black".split(), k=4)) for _ in range(count)]
    return Dataset.from_dict({"first": texts, "second": texts[::-1], "label": [int("red" in text) for text in texts]})


def make_two_tasks(**changes: Any) -> dict[str, Task]:
    """Make two tasks; `changes` are settings of the second."""
    first = make_pair_task().settings.model_dump()
    return make_tasks(Tasks.model_validate(dict(zip(TASKS, (first, {**first, **changes}), strict=True))))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    splits = {split: make_split(20, seed) for seed, split in enumerate(("train", "validation", "test"))}
    write_rows(dict.fromkeys(TASKS, splits))(tmp_path / "rows")
    return tmp_path / "rows"


class Runs:
    """Runs that keep their results in one folder, and count the texts that they embed."""

    def __init__(self, rows: Path) -> None:
        self.rows, self.folder, self.texts = rows, rows.with_name("kept"), 0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], dtype=np.float32)

    def run(
        self, tasks: dict[str, Task] | None = None, seed: int = 0, origin: dict[str, Any] = ORIGIN
    ) -> tuple[Results, int]:
        """Return the results, and the number of tasks that were computed."""
        self.texts = 0
        chosen = make_two_tasks() if tasks is None else tasks
        results = baselines.evaluate_all_baselines(chosen, self.rows, self.embed, seed, self.folder, origin)
        return results, self.texts // 120


@pytest.fixture
def runs(rows: Path) -> Runs:
    return Runs(rows)


def test_a_second_run_computes_nothing_and_says_so_in_a_line_per_task(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, computed = runs.run()
    assert computed == 2
    assert first == baselines.evaluate_all_baselines(make_two_tasks(), runs.rows, runs.embed, 0)
    caplog.clear()
    assert runs.run() == (first, 0)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"{name}: nothing changed" for name in TASKS
    ]


def test_the_source_and_weight_of_a_task_do_not_count(runs: Runs) -> None:
    runs.run()
    assert runs.run(make_two_tasks(weight=3.0, source={"path": "elsewhere"}))[1] == 0


@pytest.mark.parametrize(
    "changes",
    [{"metrics": ["f1"]}, {"labels": {0: "no", 1: "maybe"}}, {"text": "{first}"}, {"text": "{second} {first}"}],
)
def test_a_changed_task_is_computed_again_alone(runs: Runs, changes: dict[str, Any]) -> None:
    runs.run()
    results, _ = runs.run(make_two_tasks(**changes))
    fresh = baselines.evaluate_all_baselines(make_two_tasks(**changes), runs.rows, runs.embed, 0)
    assert results == fresh
    assert runs.texts > 0
    runs.texts = 0
    runs.run(make_two_tasks(**changes))
    assert runs.texts == 0


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_changed_rows_of_a_task_are_scored_again_alone(runs: Runs, split: str) -> None:
    runs.run()
    write_rows({"other": {split: make_split(20, 7)}})(runs.rows)
    (runs.rows / "other" / f"{split}.parquet").replace(runs.rows / TASKS[1] / f"{split}.parquet")
    results, computed = runs.run()
    assert computed == 1
    assert results == baselines.evaluate_all_baselines(make_two_tasks(), runs.rows, runs.embed, 0)


def test_another_seed_backbone_or_code_computes_every_task_again(runs: Runs) -> None:
    runs.run()
    assert runs.run(seed=1)[1] == 2
    assert runs.run(seed=1, origin={**ORIGIN, "code": "89"})[1] == 2
    assert runs.run(seed=1, origin={**ORIGIN, "backbone": {"path": "b", "sha256": "89"}})[1] == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"{}", b'{"sha256": "0", "result": {}}'])
def test_a_damaged_file_is_computed_again(runs: Runs, damage: bytes) -> None:
    first, _ = runs.run()
    (runs.folder / f"{TASKS[0]}.json").write_bytes(damage)
    assert runs.run() == (first, 1)
    assert runs.run() == (first, 0)


def test_a_changed_figure_in_a_file_is_noticed(runs: Runs) -> None:
    first, _ = runs.run()
    file = runs.folder / f"{TASKS[0]}.json"
    kept = json.loads(file.read_text())
    kept["result"]["test"]["majority"]["mean"] = 99.0
    file.write_text(json.dumps(kept))
    assert runs.run() == (first, 1)


def test_an_interrupted_run_keeps_the_tasks_that_are_finished(runs: Runs) -> None:
    embed = runs.embed

    def interrupt(texts: Sequence[str]) -> NDArray[np.float32]:
        if (runs.folder / f"{TASKS[0]}.json").exists():
            raise KeyboardInterrupt
        return embed(texts)

    with pytest.raises(KeyboardInterrupt):
        baselines.evaluate_all_baselines(make_two_tasks(), runs.rows, interrupt, 0, runs.folder, ORIGIN)
    assert [path.name for path in runs.folder.iterdir()] == [f"{TASKS[0]}.json"]
    assert runs.run()[1] == 1


def test_cached_results_depend_on_all_code_that_the_baselines_import() -> None:
    graph = grimp.build_graph("hyperformer", exclude_type_checking_imports=True, cache_dir=None)
    modules = graph.find_upstream_modules("hyperformer.baselines", as_package=True) | {"hyperformer.baselines"}
    assert {module.split(".")[1] for module in modules if "." in module} == set(CODE_PATHS)
