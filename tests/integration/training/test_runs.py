"""Runs that are interrupted and resume."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from processes import run_fork
from safetensors.torch import load_file
from toys import method_settings, train_settings
from transformers import TrainerCallback

from hyperformer import evaluation, training
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.data.storage import read_rows
from hyperformer.data.tokens import read_tokens
from hyperformer.model.checkpoint import CONFIGURATION, WEIGHTS
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.training import finetuning, states
from hyperformer.training.jobs import build_mixture_job
from hyperformer.training.states import lock_states
from hyperformer.training.trainer import run_loop
from hyperformer.training.validation import BEST, HISTORY

# Only tests write checkpoints less than a second apart.
pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")


class Interrupt(TrainerCallback):
    """A callback that interrupts training at the end of a step, as Ctrl+C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def run(make_model, toy_tokens, tmp_path):
    """Return a function that trains a toy model on all tasks, and returns it and its tensors before."""

    def train_model(state, settings, seed=0, callbacks=(), curve=None):
        model = make_model()
        mixture = {name: (read_tokens(toy_tokens, name), 1 / len(model.tasks)) for name in model.tasks}
        job = build_mixture_job(model, mixture, settings, seed)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        try:
            run_loop(job, settings, seed, tmp_path / state, callbacks, 2, curve)
        finally:
            model.save_pretrained(tmp_path / f"{state} saved")
        return model, before

    return train_model


class InterruptAtMessage(logging.Handler):
    """A log handler that interrupts training at a message with this beginning."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self.prefix):
            raise KeyboardInterrupt


@contextmanager
def interrupted(prefix: str) -> Iterator[None]:
    """Hold a handler that interrupts the block at a log message with this beginning."""
    handler, logger = InterruptAtMessage(prefix), logging.getLogger("hyperformer.training")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def single_state(states):
    """Return the only state in a folder of states."""
    (state,) = (path for path in states.iterdir() if path.is_dir())
    return state


def test_an_interrupted_run_ends_in_the_bytes_of_an_uninterrupted_one(run, tmp_path):
    settings = train_settings()
    model, before = run("whole", settings)
    assert any(isinstance(m, torch.nn.Dropout) and m.p == 0.1 for m in model.modules())
    with pytest.raises(KeyboardInterrupt):
        run("halved", settings, callbacks=[Interrupt(5)])
    half = (tmp_path / "halved saved" / WEIGHTS).read_bytes()
    assert [path.name for path in (tmp_path / "halved").glob("checkpoint-*")] == ["checkpoint-4"]
    run("halved", settings)
    whole = (tmp_path / "whole saved" / WEIGHTS).read_bytes()
    assert (tmp_path / "halved saved" / WEIGHTS).read_bytes() == whole
    assert half != whole
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_resumed_run_shows_the_curves_of_an_uninterrupted_one(run):
    settings, whole, halved = train_settings(), [], []
    run("whole", settings, curve=lambda *point: whole.append(point))
    with pytest.raises(KeyboardInterrupt):
        run("halved", settings, callbacks=[Interrupt(5)])
    run("halved", settings, curve=lambda *point: halved.append(point))
    assert [step for step, _ in whole] == list(range(1, 9))
    assert halved == whole


def test_an_interrupted_training_resumes_to_the_same_checkpoint_and_history(train, tmp_path):
    settings = train_settings()
    writer, history = train(settings, 0, tmp_path / "whole states")
    writer(tmp_path / "whole")

    with interrupted("step 6  validation"), pytest.raises(KeyboardInterrupt):
        train(settings, 0, tmp_path / "halved states")
    state = single_state(tmp_path / "halved states")
    assert [path.name for path in state.glob("1/checkpoint-*")] == ["checkpoint-4"]
    assert [line["step"] for line in json.loads((state / "1" / "history.json").read_text())] == [2, 4]

    writer, again = train(settings, 0, tmp_path / "halved states")
    writer(tmp_path / "halved")
    assert again == history
    assert (tmp_path / "halved" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_finished_run_returns_its_model_again(run, tmp_path):
    run("state", train_settings())
    saved = (tmp_path / "state saved" / WEIGHTS).read_bytes()
    run("state", train_settings(), callbacks=[Interrupt(1)])
    assert (tmp_path / "state saved" / WEIGHTS).read_bytes() == saved


def test_another_seed_trains_another_model(run, tmp_path):
    settings = train_settings(steps=2)
    run("a", settings, seed=0)
    run("b", settings, seed=1)
    first, second = ((tmp_path / f"{name} saved" / WEIGHTS).read_bytes() for name in "ab")
    assert first != second


def test_a_resume_state_holds_no_frozen_tensor(run, tmp_path):
    model, _ = run("state", train_settings(steps=2))
    tensors = load_file(tmp_path / "state" / "checkpoint-2" / "trained.safetensors")
    assert set(tensors) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_equal_runs_write_equal_checkpoints(train, tmp_path):
    histories = []
    for name in ("first", "second"):
        writer, history = train(train_settings(), 0, tmp_path / f"{name} states")
        writer(tmp_path / name)
        histories.append(history)
    assert histories[0] == histories[1]
    for file in (WEIGHTS, CONFIGURATION):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_checkpoint_of_the_best_mean_is_kept(train, toy_rows, tmp_path):
    settings = train_settings(learning_rate=0.1, steps=12)
    writer, history = train(settings, 0, tmp_path / "states")
    writer(tmp_path / "checkpoint")
    assert [line["step"] for line in history] == [2, 4, 6, 8, 10, 12]
    means = [line["mean"] for line in history]
    assert max(means) > means[-1], "the toy run must get worse again, or this test shows nothing"
    for line in history:
        assert line["mean"] == pytest.approx(np.mean([line[name] for name in ("mood", "mood3", "likeness")]))
    kept = MultiTaskModel.from_pretrained(tmp_path / "checkpoint")
    results = {
        name: evaluation.evaluate(kept.answer, task, read_rows(toy_rows, name, "validation").select(range(8)))[0]
        for name, task in kept.tasks.items()
    }
    assert evaluation.average_tasks(results) == pytest.approx(max(means))


def test_training_stops_when_patience_ends(train, tmp_path):
    settings = train_settings(steps=40, learning_rate=1e-30, patience=2)
    _, history = train(settings, 0, tmp_path)
    assert [line["step"] for line in history] == [2, 4, 6]
    assert len({line["mean"] for line in history}) == 1


def test_a_run_that_stopped_early_is_finished_when_it_runs_again(
    toy_rows, toy_tokens, tasks, backbone_settings, method_settings, tmp_path
):
    settings = train_settings(steps=40, learning_rate=1e-30, patience=2)

    def run(name):
        points = []
        arguments = (toy_rows, toy_tokens, tasks, backbone_settings, method_settings, settings, 0, tmp_path / "states")
        writer, history = training.train(*arguments, lambda: lambda step, values: points.append((step, values)))
        writer(tmp_path / name)
        return history, [point for point in points if "validation/mean" in point[1]]

    first = run("first")
    assert run("again") == first
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "first" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("remainder", [0, 1, 2])
def test_a_state_with_a_missing_or_changed_file_is_not_used(remainder, run, tmp_path, caplog):
    """A kill during writing, or an incomplete copy, leaves such states."""
    settings = train_settings()
    run("whole", settings)
    with pytest.raises(KeyboardInterrupt):
        run("halved", settings, callbacks=[Interrupt(5)])
    (state,) = (tmp_path / "halved").glob("checkpoint-*")
    for number, path in enumerate(sorted(state.iterdir())):
        if number % 3 == remainder and path.name != "seal.json":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif number % 3 == remainder:
            path.unlink()
    with caplog.at_level(logging.INFO, logger="hyperformer.training"):
        run("halved", settings)
    assert f"{state} is incomplete and is not used" in caplog.text
    assert (tmp_path / "halved saved" / WEIGHTS).read_bytes() == (tmp_path / "whole saved" / WEIGHTS).read_bytes()


def test_a_state_is_kept_until_the_next_one_is_complete(run, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(states, "sha256", lambda path: killed() if "checkpoint-4" in str(path) else sha256(path))
    with pytest.raises(KeyboardInterrupt):
        run("state", train_settings())
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "state").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    run("state", train_settings())
    run("whole", train_settings())
    assert (tmp_path / "state saved" / WEIGHTS).read_bytes() == (tmp_path / "whole saved" / WEIGHTS).read_bytes()


@pytest.mark.parametrize(("file", "content"), [(HISTORY, "[{"), (HISTORY, None), (BEST, "x"), (BEST, None)])
def test_a_damaged_file_of_a_state_is_named(file, content, train, tmp_path):
    train(train_settings(steps=2), 0, tmp_path)
    damaged = single_state(tmp_path) / "1" / file
    damaged.unlink()
    if content is not None:
        damaged.write_text(content)
    with pytest.raises(HyperFormerError, match=rf"{file} cannot be read .*\. Remove that folder to train from scratch"):
        train(train_settings(steps=2), 0, tmp_path)


class Diverge(TrainerCallback):
    """A callback that sets a weight to NaN in a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step == self.step - 1:
            next(p for p in model.parameters() if p.requires_grad).data.fill_(float("nan"))


def test_weights_that_are_not_finite_after_the_last_step_are_an_error(run):
    with pytest.raises(HyperFormerError, match=r"weights are no longer finite after step 8 \(the first is "):
        run("state", train_settings(), callbacks=[Diverge(8)])


def test_weights_that_are_not_finite_are_not_kept_as_the_best(train, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning.BestCheckpoint, "on_optimizer_step", Diverge(4).on_optimizer_step, raising=False)
    with pytest.raises(HyperFormerError, match=r"weights are no longer finite after step 4"):
        train(train_settings(), 0, tmp_path)
    assert [line["step"] for line in json.loads((single_state(tmp_path) / "1" / HISTORY).read_text())] == [2]


def test_a_second_run_on_the_same_states_is_refused(train, tmp_path):
    with lock_states(tmp_path), pytest.raises(HyperFormerError, match="another run is using the resume states in"):
        train(train_settings(), 0, tmp_path)


def test_curves_of_per_task_models_follow_each_other(toy_rows, toy_tokens, tasks, backbone_settings, tmp_path):
    points = []
    training.train(
        *(toy_rows, toy_tokens, tasks, backbone_settings, method_settings("adapters_per_task")),
        *(train_settings(steps=12, evaluate_every=6), 0, tmp_path),
        lambda: lambda step, values: points.append((step, values)),
    )
    losses = [step for step, values in points if "loss/mean" in values]
    assert losses == sorted(set(losses))
    assert losses[-1] == pytest.approx(12, abs=1)


def test_without_patience_training_continues_to_its_last_step(train, tmp_path):
    _, history = train(train_settings(learning_rate=1e-30, steps=7), 0, tmp_path)
    assert [line["step"] for line in history] == [2, 4, 6, 7]


@pytest.mark.parametrize("method", ["adapters_per_task", "fine_tuning_per_task"])
def test_per_task_models_share_the_steps_and_are_trained_separately(train, tmp_path, toy_rows, method):
    settings = train_settings(steps=30, evaluate_every=10, warmup_steps=3)
    writer, history = train(settings, 0, tmp_path / "states", method_settings(method))
    writer(tmp_path / "checkpoint")
    assert [line["step"] for line in history][-1] == pytest.approx(30, abs=1)
    assert all(set(line) == {"step", "mean", "mood", "mood3", "likeness"} for line in history)
    kept = TaskModels.from_pretrained(tmp_path / "checkpoint")
    best = [max(line[name] for line in history) for name in kept.tasks]
    means = [
        evaluation.evaluate(kept.answer, task, read_rows(toy_rows, name, "validation").select(range(8)))[0]["mean"]
        for name, task in kept.tasks.items()
    ]
    assert means == best
    files = sorted((tmp_path / "checkpoint").glob("*.safetensors"))
    assert len({file.read_bytes() for file in files}) == len(files) == 3


def test_training_that_is_interrupted_between_two_models_resumes_to_the_same_checkpoint(train, tmp_path):
    settings = train_settings(steps=12, evaluate_every=6)
    method = method_settings("adapters_per_task")
    writer, history = train(settings, 0, tmp_path / "whole states", method)
    writer(tmp_path / "whole")
    with interrupted("model 3 of 3"), pytest.raises(KeyboardInterrupt):
        train(settings, 0, tmp_path / "halved states", method)
    state = single_state(tmp_path / "halved states")
    assert sorted(path.name for path in state.iterdir()) == ["1", "2", "work.json"]
    writer, again = train(settings, 0, tmp_path / "halved states", method)
    writer(tmp_path / "halved")
    assert again == history
    for file in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "halved" / file.name).read_bytes() == file.read_bytes()


def test_a_task_with_a_single_answer_is_named_during_training(train, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="hyperformer.training"):
        train(train_settings(steps=1, learning_rate=1e-30), 0, tmp_path)
    (line,) = [message for message in caplog.messages if "validation mean" in message]
    assert "one answer only: " in line


def test_a_state_of_another_seed_is_neither_used_nor_kept(train, tmp_path, caplog):
    settings = train_settings(steps=4)
    writer, history = train(settings, 1, tmp_path / "clean")
    writer(tmp_path / "expected")

    train(settings, 0, tmp_path / "states")
    other = single_state(tmp_path / "states")
    assert (other / "1" / "checkpoint-4").is_dir()
    with caplog.at_level(logging.INFO, logger="hyperformer.training"):
        writer, again = train(settings, 1, tmp_path / "states")
    writer(tmp_path / "again")
    assert not other.exists()
    assert str(other) in caplog.text
    assert again == history
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "expected" / WEIGHTS).read_bytes()


KILLED = """
import json, os, signal, sys
from pathlib import Path
from transformers import TrainerCallback
from hyperformer import training
from hyperformer.settings import BackboneSettings, Methods, Tasks, TrainingSettings
from hyperformer.training import finetuning

import torch
torch.set_num_threads(1)
arguments = json.loads(sys.argv[1])
step = int(sys.argv[2])

class Killed(finetuning.BestCheckpoint):
    def on_step_end(self, args, state, control, **rest):
        super().on_step_end(args, state, control, **rest)
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

finetuning.BestCheckpoint = Killed
rows, tokens, states, out = map(Path, arguments["paths"])
method = Methods({arguments["method"]: arguments["settings"]}).get_method(arguments["method"])
writer, history = training.train(
    rows, tokens, Tasks(arguments["tasks"]), BackboneSettings(**arguments["backbone"]), method,
    TrainingSettings(**arguments["training"]), 0, states,
)
out.mkdir()
writer(out)
(out / "history.json").write_text(json.dumps(history))
"""


@pytest.mark.timeout(300)
def test_a_run_that_is_killed_three_times_ends_in_the_bytes_of_an_uninterrupted_one(
    toy_rows, toy_tokens, tasks, backbone_settings, tmp_path
):
    settings = train_settings(steps=40, evaluate_every=4, batch_size=12)
    assert sum(len(read_tokens(toy_tokens, name)) for name in tasks.root) < 40 * 12, "the run should cross an epoch"
    method = method_settings("hyperformer_plus_plus")

    def run(name, step):
        paths = [str(path) for path in (toy_rows, toy_tokens, tmp_path / f"{name} states", tmp_path / name)]
        arguments = {
            "paths": paths,
            "tasks": tasks.model_dump(mode="json"),
            "backbone": backbone_settings.model_dump(),
            "method": method.name,
            "settings": method.settings.model_dump(),
            "training": settings.model_dump(),
        }
        return run_fork(KILLED, json.dumps(arguments), step, TOKENIZERS_PARALLELISM="false")

    process = run("straight", 0)
    assert process.returncode == 0, process.stderr
    for step in sorted(np.random.default_rng(7).choice(np.arange(1, 40), 3, replace=False)):
        assert run("killed", step).returncode == -signal.SIGKILL
    process = run("killed", 0)
    assert process.returncode == 0, process.stderr
    for file in (WEIGHTS, CONFIGURATION, "history.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()
