"""The last node of the default pipeline fails if a task is not better than a guess; all artifacts are complete then."""

from __future__ import annotations

import json

import pytest
from kedro.framework.project import configure_project, pipelines
from processes import kedro

TASKS = "sentiment,similarity,entailment"


def allow(tasks: str) -> list[str]:
    return ["--params", f"export.allow_below_majority=[{tasks}]"]


@pytest.fixture
def untrained(copy):
    """Return a project whose model has the scores of the majority on validation, and perfect ones on test."""
    reports = copy / "data" / "test" / "08_reporting"
    metrics, baselines = (json.loads((reports / f"{name}.json").read_text()) for name in ("metrics", "baselines"))
    for task in TASKS.split(","):
        metrics["validation"][task] = baselines["validation"][task]["majority"]
        metrics["test"][task]["mean"] = 100.0
    (reports / "metrics.json").write_text(json.dumps(metrics))
    return copy


def test_a_task_that_is_not_better_than_a_guess_ends_the_run_with_one_sentence(untrained):
    result = kedro(untrained, "--tags", "check_quality", *allow("similarity"))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: Tasks not above the majority on validation: sentiment ")
    assert "entailment " in last
    assert "similarity" not in last
    assert "repeat" not in last  # a generative task
    assert last.endswith("or list the task in export.allow_below_majority.")
    assert "Traceback" not in result.stdout + result.stderr


def test_tasks_that_are_allowed_end_no_run(untrained):
    result = kedro(untrained, "--tags", "check_quality")  # conf/test allows all of them
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_report_is_written_before_the_check_fails(untrained):
    reports = untrained / "data" / "test" / "08_reporting"
    for name in ("results.md", "report.html"):
        (reports / name).unlink()
    result = kedro(untrained, "--tags", "report,check_quality", *allow(""))
    assert result.returncode == 1
    assert (reports / "results.md").exists()
    assert (reports / "report.html").exists()


@pytest.mark.parametrize("name", ["__default__", "report", "check_quality"])
def test_the_check_is_the_last_node(name):
    configure_project("pipelines")
    nodes = [node.name for node in pipelines[name].nodes]
    assert nodes[-1] == "check_quality"
    assert nodes.index("score_baselines") > nodes.index("train_model")
    assert nodes.index("score_baselines") > nodes.index("evaluate_model")


def test_the_pipeline_of_the_baselines_waits_for_no_training(copy):
    reports = copy / "data" / "test" / "08_reporting"
    before = (reports / "baselines.json").read_bytes()
    for name in ("metrics.json", "baselines.json"):
        (reports / name).unlink()
    result = kedro(copy, "--pipelines", "baselines", "--tags", "baselines")
    assert result.returncode == 0, result.stderr[-3000:]
    assert (reports / "baselines.json").read_bytes() == before
    assert result.stdout.count("nothing changed; using the results in") == 4


def test_one_changed_task_recomputes_its_baselines_alone(copy):
    result = kedro(copy, "--tags", "baselines", "--params", "tasks.sentiment.text=review {sentence}")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("nothing changed; using the results in") == 3
    assert "sentiment, validation: majority" in result.stdout
