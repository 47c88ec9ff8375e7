"""Runs whose length is a number of epochs, minimum passes, and the record of a training."""

from __future__ import annotations

import json
import logging

import pytest
from processes import run_python
from toys import method_settings, train_settings

from hyperformer import training
from hyperformer.data.tokens import read_tokens
from hyperformer.model.checkpoint import CARD, CONFIGURATION, WEIGHTS, read_checkpoint
from hyperformer.model.task_models import TaskModels
from hyperformer.training.validation import BestCheckpoint

# Only tests write checkpoints less than a second apart.
pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")

TASKS = ("mood", "mood3", "likeness")


def epochs(number, **changes):
    changes = {"warmup_ratio": 0.1, "batch_size": 12, **changes}
    return train_settings(epochs=number, steps=None, warmup_steps=None, evaluate_every=None, **changes)


@pytest.fixture
def counts(toy_tokens):
    return {name: len(read_tokens(toy_tokens, name)) for name in TASKS}


@pytest.fixture
def saved(train, tmp_path):
    """Return a function that trains, and returns the history, the folder and the record of the checkpoint."""

    def run(settings, name="run", **changes):
        write, history = train(settings, 0, tmp_path / f"{name} states", **changes)
        write(tmp_path / name)
        return history, tmp_path / name, json.loads((tmp_path / name / CONFIGURATION).read_text())["training"]

    return run


def test_epochs_follow_the_rows_and_are_recorded(saved, counts, caplog):
    caplog.set_level(logging.INFO, logger="hyperformer.training")
    history, folder, record = saved(epochs(2))
    steps = -(-2 * sum(counts.values()) // 12)
    assert [line["step"] for line in history] == [-(-steps // 2), steps]
    assert (record["steps"], record["threads"]) == (steps, 1)
    drawn = sum(record["passes"][name] * count for name, count in counts.items())
    assert drawn == pytest.approx(steps * 12, abs=0.01)
    assert f"mood: {record['passes']['mood']:.1f} passes over {counts['mood']} rows" in caplog.text
    assert f"Trained for {steps} steps; passes over the training rows: `mood` " in (folder / CARD).read_text()


def test_an_interrupted_run_of_epochs_ends_in_the_same_bytes(saved, monkeypatch):
    _, straight, _ = saved(epochs(3), "straight")
    on_step_end = BestCheckpoint.on_step_end

    def interrupt(self, args, state, control, **rest):
        on_step_end(self, args, state, control, **rest)
        if state.global_step == state.max_steps - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(BestCheckpoint, "on_step_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        saved(epochs(3), "halved")
    monkeypatch.undo()
    _, halved, _ = saved(epochs(3), "halved")
    for file in (WEIGHTS, CONFIGURATION):
        assert (halved / file).read_bytes() == (straight / file).read_bytes()


def test_a_run_that_stops_early_records_the_steps_that_it_ran(saved):
    history, _, record = saved(train_settings(steps=40, learning_rate=1e-30, patience=2))
    assert record["steps"] == history[-1]["step"] == 6
    _, _, again = saved(train_settings(steps=6, evaluate_every=2, learning_rate=1e-30), "short")
    assert again["passes"] == record["passes"]


def test_per_task_models_have_their_share_of_the_epochs(saved, counts):
    _, folder, record = saved(epochs(4), method=method_settings("adapters_per_task"))
    assert record["steps"] == pytest.approx(-(-4 * sum(counts.values()) // 12), abs=2)
    assert list(record["passes"]) == list(TASKS)
    assert TaskModels.from_pretrained(folder).record == read_checkpoint(folder).training


def test_small_tasks_get_a_minimum_of_passes(saved, counts):
    _, _, plain = saved(epochs(8, temperature=0.3), "plain")
    _, _, raised = saved(epochs(8, temperature=0.3, min_passes=4), "raised")
    small = min(counts, key=counts.get)
    assert plain["passes"][small] < 2
    assert raised["passes"][small] == pytest.approx(4, rel=0.35)  # the draws are random
    assert raised["steps"] == plain["steps"]


def test_a_checkpoint_without_a_record_is_read(saved):
    _, folder, _ = saved(train_settings(steps=2))
    configuration = json.loads((folder / CONFIGURATION).read_text())
    del configuration["training"]
    (folder / CONFIGURATION).write_text(json.dumps(configuration))
    models = TaskModels.from_pretrained(folder)
    assert models.record is None
    models.save_pretrained(folder.with_name("again"))
    assert "training" not in json.loads((folder.with_name("again") / CONFIGURATION).read_text())


def test_a_saved_copy_of_a_checkpoint_has_its_record(saved):
    _, folder, record = saved(train_settings(steps=2))
    TaskModels.from_pretrained(folder).save_pretrained(folder.with_name("copy"))
    assert json.loads((folder.with_name("copy") / CONFIGURATION).read_text())["training"] == record


TRAIN = """
import json, sys
from pathlib import Path
from hyperformer.settings import BackboneSettings, Methods, Tasks, TrainingSettings
from hyperformer import training

paths, blocks, threads = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
rows, tokens, states, out = map(Path, paths)
method = Methods(blocks["methods"]).get_method("hyperformer_plus_plus")
write, _ = training.train(rows, tokens, Tasks(blocks["tasks"]), BackboneSettings(**blocks["backbone"]), method,
    TrainingSettings(**blocks["training"]), 0, states, threads=threads)
out.mkdir()
write(out)
import torch
print(torch.get_num_threads())
"""


def test_equal_numbers_of_threads_give_equal_bytes(toy_rows, toy_tokens, tasks, backbone_settings, tmp_path):
    method = method_settings("hyperformer_plus_plus")
    blocks = {
        "tasks": tasks.model_dump(mode="json"),
        "backbone": backbone_settings.model_dump(),
        "methods": {method.name: method.settings.model_dump()},
        "training": train_settings(steps=4).model_dump(),
    }
    for name in ("first", "second"):
        paths = [str(path) for path in (toy_rows, toy_tokens, tmp_path / f"{name} states", tmp_path / name)]
        process = run_python(TRAIN, json.dumps(paths), json.dumps(blocks), 2)
        assert process.stdout.split() == ["2"], process.stderr
    for file in (WEIGHTS, CONFIGURATION):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert read_checkpoint(tmp_path / "first").training.threads == 2


def test_a_state_of_another_number_of_threads_is_not_resumed(
    toy_rows, toy_tokens, tasks, backbone_settings, tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.INFO, logger="hyperformer.training")
    monkeypatch.setattr(training.finetuning, "use_threads", lambda threads: threads)
    for threads in (1, 2):
        training.train(
            *(toy_rows, toy_tokens, tasks, backbone_settings, method_settings("hyperformer_plus_plus")),
            *(train_settings(steps=2), 0, tmp_path),
            threads=threads,
        )
    assert "threads is 1 in the state and 2 now" in caplog.text
