"""A toy comparison from its first run to the tables."""

from __future__ import annotations

import json
import shutil
import statistics

import pytest
from suites import OURS

from experiments import tables, transfer
from experiments.comparison import Comparison
from experiments.plan import Plan
from hyperformer.core.errors import HyperFormerError

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")


def test_a_comparison_chooses_a_learning_rate_and_resumes_from_its_runs(
    experiment_folder, suite, transfer_suite, monkeypatch
):
    toy = Comparison("toy", suite)
    assert toy.chosen_run("hyperformer_plus_plus") is None
    toy.run()
    files = sorted(path.name for path in (experiment_folder / "runs" / "comparison" / "toy").iterdir())
    tried = [f"hyperformer_plus_plus-{rate}-0.json" for rate in ("0.001", "0.01")]
    assert files == [*tried, "hyperformer_plus_plus-1.json"]
    runs = {name: json.loads((experiment_folder / "runs" / "comparison" / "toy" / name).read_text()) for name in files}
    best = max(tried, key=lambda name: runs[name]["validation"]["mean"])
    assert runs["hyperformer_plus_plus-1.json"]["learning_rate"] == runs[best]["learning_rate"]
    assert set(runs[best]["test"]) == {"sentiment", "similarity", "entailment", "repeat"}
    assert set(runs[best]["embeddings"]) == set(runs[best]["test"])

    monkeypatch.setattr("hyperformer.training.train", lambda *_: pytest.fail("a current run was computed again"))
    Comparison("toy", suite).run()
    Comparison("twin", suite).run()
    for name, run in runs.items():
        assert json.loads((experiment_folder / "runs/comparison/twin" / name).read_text()) == run
    with pytest.raises(
        HyperFormerError, match=r"Remove .*twin.*\.json, whose model is not on this machine, and run python"
    ):
        transfer.Transfer("few", transfer_suite, Comparison("twin", suite)).run()

    adapted = transfer.Transfer("few", transfer_suite, toy)
    adapted.run()
    run = json.loads((experiment_folder / "runs/transfer/few/reviews-ours-8.json").read_text())
    assert [seed["seed"] for seed in run["seeds"]] == [0, 1]
    assert {seed["started_from"] for seed in run["seeds"]} <= {*runs[best]["test"], "mean"}
    before = {path: path.read_bytes() for path in (experiment_folder / "runs").rglob("*.json")}
    transfer.Transfer("few", transfer_suite, toy).run()
    assert {path: path.read_bytes() for path in (experiment_folder / "runs").rglob("*.json")} == before

    for path in sorted((experiment_folder / "runs" / "comparison" / "toy").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace(OURS, "other")))
    suite = suite.model_copy(update={"configurations": {OURS: {}, "other": {}}})
    monkeypatch.setattr(tables, "load_plan", lambda: Plan(comparison={"toy": suite}, transfer={"few": transfer_suite}))
    (experiment_folder / "results.md").write_text(
        "<!-- table: toy test -->\n| old |\n\nText.\n\n<!-- table: few reviews -->\n"
    )
    tables.main()
    text = (experiment_folder / "results.md").read_text()
    assert "old" not in text
    means = [
        statistics.mean(scores["mean"] for scores in compared["test"].values())
        for name, compared in runs.items()
        if name in (best, files[2])
    ]
    assert f"**{statistics.mean(means):.1f} ± {statistics.stdev(means):.1f}**" in text
    scores = [seed["test"] for seed in run["seeds"]]
    assert f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f} |" in text
    drawn = {path.name: path.read_bytes() for path in (experiment_folder / "figures").iterdir()}
    assert set(drawn) == {"comparison-toy.svg", "embeddings-toy.svg", "transfer-few.svg"}
    tables.main()
    assert {path.name: path.read_bytes() for path in (experiment_folder / "figures").iterdir()} == drawn
    (experiment_folder / "runs/comparison/toy" / files[2]).unlink()
    (experiment_folder / "runs/transfer/few/reviews-ours-8.json").unlink()
    assert tables.plot_comparison("toy", suite) is tables.plot_embeddings("toy", suite) is None
    assert tables.plot_transfer("few", transfer_suite) is None
