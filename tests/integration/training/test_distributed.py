"""Two processes train as a single one does, and the failure of a process ends the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import disable_dropout, method_settings, train_settings
from transformers import TrainerCallback

from hyperformer.core.errors import HyperFormerError
from hyperformer.data.tokens import read_tokens
from hyperformer.model.checkpoint import WEIGHTS
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.settings import BackboneSettings, MethodSettings, Tasks, TrainingSettings
from hyperformer.training import distributed
from hyperformer.training.callbacks import Curve
from hyperformer.training.distributed import get_rank, launch
from hyperformer.training.jobs import build_mixture_job
from hyperformer.training.trainer import run_loop

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")


@dataclass(frozen=True)
class Run:
    """The arguments of a process of these tests."""

    folder: Path
    tokens: Path
    backbone: BackboneSettings
    method: MethodSettings
    tasks: Tasks
    training: TrainingSettings
    failure: str = ""
    launcher: int = 0


class Recorder(TrainerCallback):
    """A callback that writes the first gradient, and fails as the test asks for."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == 0 and get_rank() == 0:
            gradients = {
                name.removeprefix("module."): p.grad for name, p in model.named_parameters() if p.requires_grad
            }
            save_file(gradients, self.run.folder / "gradient.safetensors")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if get_rank() == 1 and state.global_step == 3 and self.run.failure == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if get_rank() == 1 and state.global_step == 3 and self.run.failure == "asked to end":
            os.kill(self.run.launcher, signal.SIGTERM)
        if get_rank() == 1 and state.global_step == 3 and self.run.failure == "complains":
            raise HyperFormerError("the row is invalid; fix it")


def fit(run: Run) -> None:
    """Train the toy tasks without dropout, and write every step's loss."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = MultiTaskModel(run.backbone, run.method, run.tasks)
    disable_dropout(model)
    mixture = {name: (read_tokens(run.tokens, name), 1 / len(model.tasks)) for name in model.tasks}
    losses: dict[int, float] = {}
    curve: Curve | None = (lambda step, values: losses.update({step: values["loss/mean"]})) if get_rank() == 0 else None
    job = build_mixture_job(model, mixture, run.training, 0)
    run_loop(job, run.training, 0, run.folder / "state", [Recorder(run)], 1, curve)
    if get_rank() == 0:
        (run.folder / "losses.json").write_text(json.dumps(losses))


@pytest.fixture(autouse=True)
def forks(monkeypatch):
    """Fork the ranks from a process that has imported the libraries, instead of starting each from scratch."""
    processes.fork_server()
    monkeypatch.setattr(distributed, "LaunchConfig", partial(distributed.LaunchConfig, start_method="forkserver"))


@pytest.fixture
def make_run(tmp_path, toy_tokens, backbone_settings, tasks):
    """Return a function that makes the arguments of a run."""

    def make(name, method="hyperformer_plus_plus", failure="", **changes):
        folder = tmp_path / name
        folder.mkdir()
        settings = train_settings(batch_size=7, learning_rate=1e-3, **changes)
        launcher = os.getpid()
        return Run(folder, toy_tokens, backbone_settings, method_settings(method), tasks, settings, failure, launcher)

    return make


@pytest.mark.timeout(180)
def test_two_processes_have_the_gradient_and_the_losses_of_a_single_one(make_run):
    single, shared = make_run("single", steps=50), make_run("shared", steps=50, processes=2)
    for run in (single, shared):
        launch(fit, run, run.training, 1)
    expected, gradients = (load_file(run.folder / "gradient.safetensors") for run in (single, shared))
    assert expected.keys() == gradients.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-6)
    expected, losses = (json.loads((run.folder / "losses.json").read_text()) for run in (single, shared))
    assert len(expected) == 50
    assert list(losses.values()) == pytest.approx(list(expected.values()), rel=1e-4)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("killed", r"process 1 of 2 on \S+: ended with SIGKILL"),
        ("complains", "process 1 of 2 .*: the row is invalid; fix it$"),
        ("asked to end", r"training was stopped by SIGTERM\. Run the same command again to resume"),
    ],
)
def test_the_failure_of_a_process_ends_the_run_with_its_error(make_run, failure, message):
    run = make_run("run", steps=10_000, processes=2, failure=failure)
    with pytest.raises(HyperFormerError, match=message):
        launch(fit, run, run.training, 1)
    end = time.time()
    last_write = max(path.stat().st_mtime for path in (run.folder / "state").rglob("*") if path.is_file())
    assert end - last_write < 30


@pytest.mark.timeout(180)
@pytest.mark.parametrize("start", ["forked", pytest.param("started as a launcher does", marks=pytest.mark.slow)])
def test_training_by_two_processes_writes_a_single_checkpoint(train, tmp_path, monkeypatch, start):
    if start != "forked":
        monkeypatch.undo()
    writer, single = train(train_settings(), 0, tmp_path / "single states")
    writer(tmp_path / "single")
    writer, shared = train(train_settings(processes=2), 0, tmp_path / "shared states")
    writer(tmp_path / "shared")
    assert [line["step"] for line in shared] == [line["step"] for line in single]
    shapes = [
        {tensor_name: tensor.shape for tensor_name, tensor in load_file(tmp_path / name / WEIGHTS).items()}
        for name in ("single", "shared")
    ]
    assert shapes[0] == shapes[1]


def test_a_process_that_a_launcher_started_is_refused(monkeypatch, make_run):
    monkeypatch.setenv("WORLD_SIZE", "4")
    run = make_run("run")
    with pytest.raises(
        HyperFormerError, match="is one of 4 that a launcher started; expected one start on each machine"
    ):
        launch(fit, run, run.training, 1)


@pytest.mark.timeout(120)
def test_a_machine_that_no_other_joins_is_an_error(monkeypatch, make_run):
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 2)
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    run = make_run("run", machines=2, rendezvous=f"localhost:{port}")
    with pytest.raises(
        HyperFormerError,
        match=rf"cannot connect the machines at training\.rendezvous, localhost:{port} .*its port is free",
    ):
        launch(fit, run, run.training, 1)
