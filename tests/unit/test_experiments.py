"""The hours-long measurements: their plan, what makes cells, and what is made of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from suites import COMPARED, OURS, TRANSFERRED

from experiments import store, tables, transfer
from experiments.comparison import Comparison
from experiments.plan import PLAN, ROOT, named, plan, settings_of
from hyperformer.config import ConfigurationError
from hyperformer.types import HyperFormerError


def test_every_suite_of_the_plan_is_a_run_that_can_be_made():
    whole = plan()
    for name, suite in whole.comparison.items():
        for own in suite.contenders.values():
            found = settings_of(suite, **own, **{"seed": 7, "training.learning_rate": 0.5})
            assert (found.seed, found.training.learning_rate) == (7, 0.5)
        assert len(list(Comparison(name, suite).wanted())) == len(suite.contenders) * (
            len(suite.rates) + len(suite.seeds) - 1
        )
    for suite in whole.transfer.values():
        known = whole.comparison[suite.comparison].contenders
        assert {contender.trained for contender in suite.contenders.values()} <= known.keys()
        assert set(suite.tasks) <= set(settings_of(suite).tasks.root)


def test_contenders_share_all_but_their_methods_and_no_two_are_the_same():
    for suite in plan().comparison.values():
        found = [settings_of(suite, **own) for own in suite.contenders.values()]
        assert all(one.training == found[0].training for one in found)
        assert all(one.tasks == found[0].tasks for one in found)
        assert len({one.chosen_method.model_dump_json() for one in found}) == len(found)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"comparison": {"toy": {**COMPARED, "test_rows": 0}}}, "comparison.toy.test_rows: .* greater than 0, got 0"),
        ({"comparison": {"toy": {**COMPARED, "test_row": 1}}}, "comparison.toy.test_row"),
        (
            {"comparison": {"toy": {**COMPARED, "test_rows": 1, "rates": [2, 1]}}},
            "toy.rates: .*expected rates that rise",
        ),
        ({"comparison": {}, "transfer": {"toy": {**TRANSFERRED, "seeds": []}}}, "transfer.toy.seeds"),
    ],
)
def test_a_fault_of_the_plan_is_named(fault, said, tmp_path):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(fault))
    with pytest.raises(ConfigurationError, match=said):
        plan(tmp_path / "plan.yaml")


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(ConfigurationError, match="unknown suite 'minlm'; did you mean 'minilm'"):
        named(plan().comparison, "minlm")


def test_a_cell_stands_until_what_it_is_made_from_changes():
    made_from = {"settings": "a", "rows": "b", "backbone": "c", "code": "d"}
    assert store.stands({"made_from": made_from}, made_from)
    assert store.stands({"made_from": made_from}, {**made_from, "code": "e"})
    assert not store.stands({"made_from": made_from}, {**made_from, "rows": "e"})
    assert not store.stands(None, made_from)


def test_a_setting_at_its_default_is_no_part_of_what_a_cell_is_made_from(suite):
    one = settings_of(suite).training
    assert store.digest([one]) == store.digest([type(one)(**one.model_dump(exclude_defaults=True))])
    assert store.digest([one]) != store.digest([one.model_copy(update={"steps": 3})])


def test_a_claim_is_one_process_alone(places):
    with store.claimed("comparison", "toy", "cell") as first, store.claimed("comparison", "toy", "cell") as second:
        assert first
        assert not second
    with store.claimed("comparison", "toy", "cell") as third:
        assert third


@pytest.mark.parametrize(
    ("means", "tried", "best"),
    [
        ({1e-3: 60, 3e-3: 61, 1e-2: 50, 3e-4: 0, 3e-2: 0}, [1e-3, 3e-3, 1e-2], 3e-3),
        ({1e-3: 62, 3e-3: 61, 1e-2: 50, 3e-4: 63, 3e-2: 0}, [1e-3, 3e-3, 1e-2, 3e-4], 3e-4),
        ({1e-3: 60, 3e-3: 61, 1e-2: 65, 3e-4: 0, 3e-2: 64}, [1e-3, 3e-3, 1e-2, 3e-2], 1e-2),
    ],
)
def test_rates_are_tried_from_the_middle_until_the_best_has_tried_neighbours(means, tried, best, places, suite):
    toy = Comparison("toy", suite.model_copy(update={"rates": sorted(means)}))
    for rate in tried:
        assert toy.chosen_rate(OURS) is None
        assert rate in toy.rates_to_try(OURS)
        store.write({"validation": {"mean": means[rate]}}, "comparison", "toy", toy.tried(OURS, rate))
    assert toy.rates_to_try(OURS) == []
    assert toy.chosen_rate(OURS) == best


def test_a_folder_that_several_need_is_made_by_one(places):
    made = []

    def fill(folder):
        made.append(folder)
        time.sleep(0.2)

    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda _: store.made_once(places / "work" / "rows", lambda: fill), range(4)))
    assert len(made) == 1


def test_a_transfer_before_its_comparison_says_what_to_run(places, suite, few):
    with pytest.raises(HyperFormerError, match=r"run python -m experiments\.comparison toy first"):
        transfer.Transfer("few", few, Comparison("toy", suite)).run()


def test_what_is_documented_is_what_the_cells_say(tmp_path, monkeypatch):
    shown = (ROOT / "docs" / "results.md").read_text()
    copy = tmp_path / "results.md"
    copy.write_text(tables.PLACE.sub(r"\1", shown))
    monkeypatch.setattr(tables, "RESULTS", copy)
    monkeypatch.setattr(tables, "FIGURES", tmp_path / "figures")
    tables.main()
    assert copy.read_text() == shown
    results = {name for name in tables.every_table() if not name.endswith((" rates", " steps"))}
    assert results <= {name for _, name in tables.PLACE.findall(shown)}


def test_a_table_that_is_in_no_suite_is_answered_with_the_nearest(places):
    (places / "results.md").write_text("<!-- table: embedded tets -->\n")
    with pytest.raises(HyperFormerError, match=r"unknown table 'embedded tets'"):
        tables.main()


def test_every_cell_is_one_that_the_plan_wants_made_by_its_settings():
    whole = plan()
    known = set()
    for name, suite in whole.comparison.items():
        wanted = Comparison(name, suite)
        for cell, contender, rate, seed in wanted.wanted():
            there = store.read("comparison", name, cell)
            chosen = wanted.chosen_rate(contender) if rate is None else rate
            if there and chosen is not None:
                known.add(store.path_of("comparison", name, cell))
                settings = wanted.cell_settings(contender, chosen, seed)
                assert there["made_from"]["settings"] == wanted.digest(settings), cell
    for name, few in whole.transfer.items():
        for cell, *_ in transfer.Transfer(name, few, Comparison("any", suite)).wanted():
            known.add(store.path_of("transfer", name, cell))
    assert set(store.CELLS.rglob("*.json")) <= known


def test_the_stages_of_dvc_are_the_plans_suites():
    stages = yaml.safe_load(PLAN.with_name("dvc.yaml").read_text())["stages"]
    assert set(stages["comparison"]["foreach"]) == set(plan().comparison)
    assert {name: one["from"] for name, one in stages["transfer"]["foreach"].items()} == {
        name: suite.comparison for name, suite in plan().transfer.items()
    }
