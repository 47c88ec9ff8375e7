"""The command that continues an interrupted run, and what it has kept."""

from __future__ import annotations

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from pipelines.datasets import FolderDataset, WorkingFolderDataset
from pipelines.hooks.interruption import STAGE, RunProgress

COMMAND = ["run", "--env", "my env", "--from-nodes", "a", "--params", "seed=3"]
CONTINUED = "kedro run --env 'my env' --params seed=3 --from-nodes"


def identity(*values):
    return values


NODES = {
    "a": Node(identity, None, "x", name="a"),
    "b": Node(identity, "x", "y", name="b"),
    "train": Node(identity, ["y", "resume_states"], "z", name="train", tags=["train"]),
    "c": Node(identity, ["x", "y"], None, name="c"),
}


@pytest.fixture
def progress(tmp_path, monkeypatch):
    monkeypatch.delenv(STAGE, raising=False)
    datasets = {name: FolderDataset(str(tmp_path / name)) for name in "xz"}
    datasets |= {"y": MemoryDataset(), "resume_states": WorkingFolderDataset(str(tmp_path / "states"))}
    progress = RunProgress()
    progress.before_pipeline_run(Pipeline(list(NODES.values())), DataCatalog(datasets))
    return progress


def finish(progress, *names):
    for name in names:
        progress.before_node_run(NODES[name])
        progress.after_node_run(NODES[name])
        for output in NODES[name].outputs:
            progress.after_dataset_saved(output, NODES[name])


def test_before_the_first_node_the_same_command_continues(progress):
    message = progress.describe_interruption(COMMAND)
    assert message.startswith("Interrupted before the first node. Nothing was saved. Continue with: kedro run --env")
    assert message.endswith(" --from-nodes a --params seed=3")


def test_a_run_continues_from_the_nodes_that_have_not_finished(progress):
    finish(progress, "a")
    progress.before_node_run(NODES["b"])
    message = progress.describe_interruption(COMMAND)
    assert message == f"Interrupted in the node b. Kept: the saved x. Continue with: {CONTINUED} b"


def test_a_node_whose_outputs_are_only_in_memory_runs_again(progress):
    finish(progress, "a", "b")
    progress.before_node_run(NODES["c"])
    assert progress.describe_interruption(COMMAND).endswith(f"{CONTINUED} b")


def test_a_node_is_unfinished_until_its_last_output_is_saved(progress):
    progress.before_node_run(NODES["a"])
    progress.after_node_run(NODES["a"])
    assert progress.describe_interruption(["run"]) == (
        "Interrupted in the node a. Nothing was saved. Continue with: kedro run"
    )


def test_the_last_resume_state_of_an_interrupted_training_is_named(progress, tmp_path):
    for pipeline, step in (("train", 40), ("transfer", 90)):
        state = tmp_path / "states" / pipeline / "0123" / "1" / f"checkpoint-{step}"
        state.mkdir(parents=True)
        (state / "seal.json").write_text("{}")
    (tmp_path / "states" / "train" / "0123" / "1" / "checkpoint-60").mkdir()  # incomplete
    finish(progress, "a", "b")
    progress.before_node_run(NODES["train"])
    state = tmp_path / "states" / "train" / "0123" / "1" / "checkpoint-40"
    assert f"Kept: the saved x; the resume state of step 40 in {state}. " in progress.describe_interruption(COMMAND)


@pytest.mark.parametrize(
    ("stage", "command"), [("train", "dvc repro"), ("conf/my/dvc.yaml:train", "dvc repro conf/my/dvc.yaml")]
)
def test_a_dvc_stage_is_continued_by_dvc(progress, monkeypatch, stage, command):
    monkeypatch.setenv(STAGE, stage)
    finish(progress, "a")
    assert progress.describe_interruption(COMMAND).endswith(f"Continue with: {command}")


def test_an_option_is_replaced_however_it_is_written(progress):
    finish(progress, "a")
    assert progress.describe_interruption(["run", "--from-nodes=a,b"]).endswith("kedro run --from-nodes b")
