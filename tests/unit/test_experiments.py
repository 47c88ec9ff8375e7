"""The experiments: their plan, the search of learning rates, recorded runs, and tables."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from suites import COMPARISON, OURS, TRANSFER

from experiments import store, tables, transfer
from experiments.comparison import Comparison
from experiments.plan import PLAN, ROOT, ComparisonSuite, find_suite, load_plan, resolve_settings
from hyperformer.core.errors import HyperFormerError
from hyperformer.data.storage import read_rows
from hyperformer.settings import ConfigurationError


def test_every_suite_of_the_plan_resolves_to_valid_settings():
    plan = load_plan()
    for name, suite in plan.comparison.items():
        for overrides in suite.configurations.values():
            settings = resolve_settings(suite, **overrides, **{"seed": 7, "training.learning_rate": 0.5})
            assert (settings.seed, settings.training.learning_rate) == (7, 0.5)
        assert len(list(Comparison(name, suite).planned_runs())) == len(suite.configurations) * (
            len(suite.learning_rates) + len(suite.seeds) - 1
        )
    for suite in plan.transfer.values():
        known = plan.comparison[suite.comparison].configurations
        assert {adaptation.model for adaptation in suite.configurations.values()} <= known.keys()
        assert set(suite.tasks) <= set(resolve_settings(suite).tasks.root)


def test_configurations_share_all_but_their_methods_and_no_two_are_the_same():
    for suite in load_plan().comparison.values():
        resolved = [resolve_settings(suite, **overrides) for overrides in suite.configurations.values()]
        assert all(settings.training == resolved[0].training for settings in resolved)
        assert all(settings.tasks == resolved[0].tasks for settings in resolved)
        assert len({settings.chosen_method.model_dump_json() for settings in resolved}) == len(resolved)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"comparison": {"toy": {**COMPARISON, "test_rows": 0}}}, "comparison.toy.test_rows: .* greater than 0, got 0"),
        ({"comparison": {"toy": {**COMPARISON, "test_row": 1}}}, "comparison.toy.test_row"),
        (
            {"comparison": {"toy": {**COMPARISON, "test_rows": 1, "learning_rates": [2, 1]}}},
            "toy.learning_rates: .*expected learning rates in increasing order",
        ),
        ({"comparison": {}, "transfer": {"toy": {**TRANSFER, "seeds": []}}}, "transfer.toy.seeds"),
    ],
)
def test_a_fault_of_the_plan_is_named(plan, message, tmp_path):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(ConfigurationError, match=message):
        load_plan(tmp_path / "plan.yaml")


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(ConfigurationError, match="unknown suite 'minlm'; did you mean 'minilm'"):
        find_suite(load_plan().comparison, "minlm")


def test_a_run_is_current_until_its_inputs_change():
    made_from = {"settings": "a", "rows": "b", "backbone": "c", "code": "d"}
    assert store.is_current({"made_from": made_from}, made_from)
    assert store.is_current({"made_from": made_from}, {**made_from, "code": "e"})
    assert not store.is_current({"made_from": made_from}, {**made_from, "rows": "e"})
    assert not store.is_current(None, made_from)


def test_a_setting_at_its_default_does_not_change_the_digest(suite):
    training = resolve_settings(suite).training
    explicit = type(training)(**training.model_dump(exclude_defaults=True))
    assert store.digest([training]) == store.digest([explicit])
    assert store.digest([training]) != store.digest([training.model_copy(update={"steps": 3})])


def test_only_one_process_holds_a_claim(experiment_folder):
    with store.claim("comparison", "toy", "run") as first, store.claim("comparison", "toy", "run") as second:
        assert first
        assert not second
    with store.claim("comparison", "toy", "run") as third:
        assert third


@pytest.mark.parametrize(
    ("means", "tried", "best"),
    [
        ({1e-3: 60, 3e-3: 61, 1e-2: 50, 3e-4: 0, 3e-2: 0}, [1e-3, 3e-3, 1e-2], 3e-3),
        ({1e-3: 62, 3e-3: 61, 1e-2: 50, 3e-4: 63, 3e-2: 0}, [1e-3, 3e-3, 1e-2, 3e-4], 3e-4),
        ({1e-3: 60, 3e-3: 61, 1e-2: 65, 3e-4: 0, 3e-2: 64}, [1e-3, 3e-3, 1e-2, 3e-2], 1e-2),
    ],
)
def test_learning_rates_are_tried_from_the_middle_until_the_best_has_tried_neighbors(
    means, tried, best, experiment_folder, suite
):
    toy = Comparison("toy", suite.model_copy(update={"learning_rates": sorted(means)}))
    for rate in tried:
        assert toy.chosen_learning_rate(OURS) is None
        assert rate in toy.learning_rates_to_try(OURS)
        store.write({"validation": {"mean": means[rate]}}, "comparison", "toy", toy.search_run(OURS, rate))
    assert toy.learning_rates_to_try(OURS) == []
    assert toy.chosen_learning_rate(OURS) == best


def test_the_search_starts_from_the_learning_rate_of_the_plan(experiment_folder, suite):
    changes = {"learning_rates": [1e-4, 1e-3, 1e-2, 1e-1], "search_from": {OURS: 1e-3}}
    suite = ComparisonSuite(**{**suite.model_dump(), **changes})
    assert Comparison("toy", suite).learning_rates_to_try(OURS) == [1e-4, 1e-3, 1e-2]
    with pytest.raises(ValueError, match=f"search_from has {OURS}: 2; expected a configuration and a candidate"):
        ComparisonSuite(**{**suite.model_dump(), "search_from": {OURS: 2.0}})


def test_each_seed_has_other_training_rows_and_the_same_test_rows(experiment_folder, suite):
    toy = Comparison("toy", suite.model_copy(update={"train_rows": 8}))
    first, again, other = (toy.prepare_inputs(seed)[0] for seed in (0, 0, 1))
    assert first == again
    texts = [{row["sentence"] for row in read_rows(rows, "sentiment", "train")} for rows in (first, other)]
    assert len(texts[0]) == len(texts[1]) == 8
    assert texts[0] != texts[1]
    assert len(read_rows(first, "entailment", "train")) == 8
    for split in ("validation", "test"):
        assert list(read_rows(first, "sentiment", split)) == list(read_rows(other, "sentiment", split))


def test_a_folder_that_several_need_is_written_once(experiment_folder):
    folders = []

    def fill(folder):
        folders.append(folder)
        time.sleep(0.2)

    with ThreadPoolExecutor(4) as executor:
        list(
            executor.map(lambda _: store.write_folder_once(experiment_folder / "work" / "rows", lambda: fill), range(4))
        )
    assert len(folders) == 1


def test_a_transfer_before_its_comparison_says_what_to_run(experiment_folder, suite, transfer_suite):
    with pytest.raises(HyperFormerError, match=r"Run python -m experiments\.comparison toy\."):
        transfer.Transfer("few", transfer_suite, Comparison("toy", suite)).run()


def test_the_documented_tables_are_those_of_the_recorded_runs(tmp_path, monkeypatch):
    document = (ROOT / "docs" / "results.md").read_text()
    copy = tmp_path / "results.md"
    copy.write_text(tables.MARKER.sub(r"\1", document))
    monkeypatch.setattr(tables, "RESULTS", copy)
    monkeypatch.setattr(tables, "FIGURES", tmp_path / "figures")
    tables.main()
    assert copy.read_text() == document
    results = {name for name in tables.all_tables() if not name.endswith((" rates", " steps"))}
    assert results <= {name for _, name in tables.MARKER.findall(document)}


def test_differences_are_those_of_the_same_seed_without_small_tasks(suite):
    def run(learning_rate, **means):
        scores = {task: {"mean": mean} for task, mean in means.items()}
        return {"learning_rate": learning_rate, "parameters": {"trained": 1234}, "test": scores}

    runs = {
        OURS: [run(0.001, a=60.0, b=10.0), run(0.001, a=70.0, b=20.0)],
        "adapters_multi_task": [run(0.003, a=61.0, b=90.0), run(0.003, a=74.0, b=90.0)],
    }
    text = tables.paired_table(runs, suite.model_copy(update={"small_tasks": ["b"]}))
    header, _, ours, other = text.splitlines()
    assert "| mean of 2 tasks | mean of 1 tasks |" in header
    assert ours.startswith("| HyperFormer++ | 1,234 | 0.001 | 40.0 ± 7.1 | **65.0 ± 7.1** |")
    assert other.endswith("| +1.0, +4.0 | +2.50 ± 1.50 |")


def test_a_table_that_is_in_no_suite_is_answered_with_the_nearest(experiment_folder):
    (experiment_folder / "results.md").write_text("<!-- table: embedded tets -->\n")
    with pytest.raises(HyperFormerError, match=r"unknown table 'embedded tets'"):
        tables.main()


def test_every_recorded_run_is_planned_and_has_the_digest_of_its_settings():
    plan = load_plan()
    known = set()
    for name, suite in plan.comparison.items():
        comparison = Comparison(name, suite)
        for run_name, configuration, learning_rate, seed in comparison.planned_runs():
            run = store.read("comparison", name, run_name)
            chosen = comparison.chosen_learning_rate(configuration) if learning_rate is None else learning_rate
            if run and chosen is not None:
                known.add(store.path_of("comparison", name, run_name))
                settings = comparison.run_settings(configuration, chosen, seed)
                assert run["made_from"]["settings"] == comparison.digest(settings), run_name
    for name, transfer_suite in plan.transfer.items():
        for run_name, *_ in transfer.Transfer(name, transfer_suite, Comparison("any", suite)).planned_runs():
            known.add(store.path_of("transfer", name, run_name))
    assert set(store.RUNS.rglob("*.json")) <= known


def test_the_stages_of_dvc_are_the_plans_suites():
    stages = yaml.safe_load(PLAN.with_name("dvc.yaml").read_text())["stages"]
    assert set(stages["comparison"]["foreach"]) == set(load_plan().comparison)
    assert {name: item["from"] for name, item in stages["transfer"]["foreach"].items()} == {
        name: suite.comparison for name, suite in load_plan().transfer.items()
    }
