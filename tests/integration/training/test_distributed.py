"""Two processes train as one does, and the death of one ends the run."""

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
from toys import method_settings, no_dropout, train_settings
from transformers import TrainerCallback

from hyperformer.config import BackboneSettings, MethodSettings, Tasks, TrainingSettings
from hyperformer.data import read_tokens
from hyperformer.model import WEIGHTS, MultiTaskModel
from hyperformer.training import distributed
from hyperformer.training.distributed import launch, rank
from hyperformer.training.engine import Curve, run_loop
from hyperformer.training.finetuning import mixed_batches
from hyperformer.types import HyperFormerError

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")


@dataclass(frozen=True)
class Given:
    """What a process of these tests is given."""

    folder: Path
    tokens: Path
    backbone: BackboneSettings
    method: MethodSettings
    tasks: Tasks
    training: TrainingSettings
    dies: str = ""
    launcher: int = 0


class Recorded(TrainerCallback):
    """Writes the first gradient, and dies where the test says so."""

    def __init__(self, given: Given) -> None:
        self.given = given

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == 0 and rank() == 0:
            found = {name.removeprefix("module."): p.grad for name, p in model.named_parameters() if p.requires_grad}
            save_file(found, self.given.folder / "gradient.safetensors")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if rank() == 1 and state.global_step == 3 and self.given.dies == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if rank() == 1 and state.global_step == 3 and self.given.dies == "asked to end":
            os.kill(self.given.launcher, signal.SIGTERM)
        if rank() == 1 and state.global_step == 3 and self.given.dies == "complains":
            raise HyperFormerError("the row is odd; mend it")


def fit(given: Given) -> None:
    """Trains the toy tasks with dropout off, and writes every step's loss."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = MultiTaskModel(given.backbone, given.method, given.tasks)
    no_dropout(model)
    parts = {name: (read_tokens(given.tokens, name), 1 / len(model.tasks)) for name in model.tasks}
    losses: dict[int, float] = {}
    curve: Curve | None = (lambda step, values: losses.update({step: values["loss/mean"]})) if rank() == 0 else None
    work = mixed_batches(model, parts, given.training, 0)
    run_loop(work, given.training, 0, given.folder / "state", [Recorded(given)], 1, curve)
    if rank() == 0:
        (given.folder / "losses.json").write_text(json.dumps(losses))


@pytest.fixture(autouse=True)
def forks(monkeypatch):
    """Fork the ranks from a process that has the libraries imported, where a launcher would start each afresh."""
    processes.fork_server()
    monkeypatch.setattr(distributed, "LaunchConfig", partial(distributed.LaunchConfig, start_method="forkserver"))


@pytest.fixture
def given(tmp_path, toy_tokens, backbone_settings, tasks):
    def make(name, method="hyperformer_plus_plus", dies="", **changes):
        folder = tmp_path / name
        folder.mkdir()
        settings = train_settings(batch_size=7, learning_rate=1e-3, **changes)
        launcher = os.getpid()
        return Given(folder, toy_tokens, backbone_settings, method_settings(method), tasks, settings, dies, launcher)

    return make


@pytest.mark.timeout(180)
def test_two_processes_have_the_gradient_and_the_losses_of_one(given):
    alone, shared = given("alone", steps=50), given("shared", steps=50, processes=2)
    for run in (alone, shared):
        launch(fit, run, run.training)
    one, two = (load_file(run.folder / "gradient.safetensors") for run in (alone, shared))
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=0, atol=1e-6)
    one, two = (json.loads((run.folder / "losses.json").read_text()) for run in (alone, shared))
    assert len(one) == 50
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-4)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("dies", "said"),
    [
        ("killed", r"process 1 of 2 on \S+: was ended by SIGKILL"),
        ("complains", "process 1 of 2 .*: the row is odd; mend it$"),
        ("asked to end", r"training was ended by SIGTERM\. The same command goes on"),
    ],
)
def test_the_death_of_a_process_ends_the_run_with_its_own_error(given, dies, said):
    run = given("run", steps=10_000, processes=2, dies=dies)
    with pytest.raises(HyperFormerError, match=said):
        launch(fit, run, run.training)
    ended = time.time()
    died = max(path.stat().st_mtime for path in (run.folder / "state").rglob("*") if path.is_file())
    assert ended - died < 30


@pytest.mark.timeout(180)
@pytest.mark.parametrize("start", ["forked", pytest.param("started as a launcher does", marks=pytest.mark.slow)])
def test_training_by_two_processes_ends_in_one_checkpoint(train, tmp_path, monkeypatch, start):
    if start != "forked":
        monkeypatch.undo()
    writer, alone = train(train_settings(), 0, tmp_path / "alone states")
    writer(tmp_path / "alone")
    writer, shared = train(train_settings(processes=2), 0, tmp_path / "shared states")
    writer(tmp_path / "shared")
    assert [line["step"] for line in shared] == [line["step"] for line in alone]
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("alone", "shared"))
    assert {name: tensor.shape for name, tensor in two.items()} == {name: tensor.shape for name, tensor in one.items()}


def test_a_process_that_a_launcher_started_is_refused(monkeypatch, given):
    monkeypatch.setenv("WORLD_SIZE", "4")
    run = given("run")
    with pytest.raises(HyperFormerError, match="started as one of 4; expected one start on each machine"):
        launch(fit, run, run.training)


@pytest.mark.timeout(120)
def test_a_machine_that_nobody_joins_says_so(monkeypatch, given):
    monkeypatch.setattr(distributed, "SECONDS_TO_MEET", 2)
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    run = given("run", machines=2, rendezvous=f"localhost:{port}")
    with pytest.raises(
        HyperFormerError, match=rf"did not meet at training\.rendezvous, localhost:{port} .*its port free"
    ):
        launch(fit, run, run.training)
