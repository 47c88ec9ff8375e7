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
from hyperformer.types import HyperFormerError

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")


def test_a_comparison_tries_rates_chooses_one_and_goes_on_from_its_cells(places, suite, few, monkeypatch):
    toy = Comparison("toy", suite)
    assert toy.chosen("hyperformer_plus_plus") is None
    toy.run()
    files = sorted(path.name for path in (places / "runs" / "comparison" / "toy").iterdir())
    tried = [f"hyperformer_plus_plus-{rate}-0.json" for rate in ("0.001", "0.01")]
    assert files == [*tried, "hyperformer_plus_plus-1.json"]
    found = {name: json.loads((places / "runs" / "comparison" / "toy" / name).read_text()) for name in files}
    best = max(tried, key=lambda name: found[name]["validation"]["mean"])
    assert found["hyperformer_plus_plus-1.json"]["learning_rate"] == found[best]["learning_rate"]
    assert set(found[best]["test"]) == {"sentiment", "similarity", "entailment", "repeat"}
    assert set(found[best]["embeddings"]) == set(found[best]["test"])

    monkeypatch.setattr("hyperformer.training.train", lambda *_: pytest.fail("a cell that stands was made again"))
    Comparison("toy", suite).run()
    Comparison("twin", suite).run()
    for name, cell in found.items():
        assert json.loads((places / "runs/comparison/twin" / name).read_text()) == cell
    with pytest.raises(HyperFormerError, match=r"remove .*twin.*\.json, which stands without it, and run python"):
        transfer.Transfer("few", few, Comparison("twin", suite)).run()

    adapted = transfer.Transfer("few", few, toy)
    adapted.run()
    one = json.loads((places / "runs/transfer/few/reviews-ours-8.json").read_text())
    assert [run["seed"] for run in one["runs"]] == [0, 1]
    assert {run["started_from"] for run in one["runs"]} <= set(found[best]["test"])
    before = {path: path.read_bytes() for path in (places / "runs").rglob("*.json")}
    transfer.Transfer("few", few, toy).run()
    assert {path: path.read_bytes() for path in (places / "runs").rglob("*.json")} == before

    for path in sorted((places / "runs" / "comparison" / "toy").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace(OURS, "other")))
    suite = suite.model_copy(update={"contenders": {OURS: {}, "other": {}}})
    monkeypatch.setattr(tables, "plan", lambda: Plan(comparison={"toy": suite}, transfer={"few": few}))
    (places / "results.md").write_text("<!-- table: toy test -->\n| old |\n\nText.\n\n<!-- table: few reviews -->\n")
    tables.main()
    text = (places / "results.md").read_text()
    assert "old" not in text
    means = [
        statistics.mean(t["mean"] for t in cell["test"].values())
        for name, cell in found.items()
        if name in (best, files[2])
    ]
    assert f"**{statistics.mean(means):.1f} ± {statistics.stdev(means):.1f}**" in text
    scores = [run["test"] for run in one["runs"]]
    assert f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f} |" in text
    drawn = {path.name: path.read_bytes() for path in (places / "figures").iterdir()}
    assert set(drawn) == {"comparison-toy.svg", "embeddings-toy.svg", "transfer-few.svg"}
    tables.main()
    assert {path.name: path.read_bytes() for path in (places / "figures").iterdir()} == drawn
    (places / "runs/comparison/toy" / files[2]).unlink()
    (places / "runs/transfer/few/reviews-ours-8.json").unlink()
    assert tables.bars("toy", suite) is tables.embedding_map("toy", suite) is tables.curves("few", few) is None
