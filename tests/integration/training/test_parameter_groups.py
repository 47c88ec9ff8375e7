"""Learning rates of kinds of parameters, and the measures of each validation."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from toys import method_settings, train_settings

from hyperformer import training
from hyperformer.methods import diagnostics
from hyperformer.model.checkpoint import WEIGHTS
from hyperformer.model.multi_task import MultiTaskModel

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")

OFFSETS = {"shared_adapter": True, "embeddings": "product", "projector": None, "layer_norm": "conditional_offset"}
MULTIPLIERS = {"adapters": 5.0, "layer_norms": 16.0, "generated_layer_norms": 0.25, "embeddings": 0.0}
NAME = "hyperformer_plus_plus"
RATE = 1e-3


def measure_steps(train, tmp_path, **changes):
    """Train one step; return the largest change of each kind of parameter, divided by the learning rate."""
    method = method_settings(NAME, **changes)
    settings = train_settings(steps=1, evaluate_every=1, warmup_steps=0, learning_rate=RATE)
    states = tmp_path / "states"
    write, history = train(settings, 0, states, method)
    write(tmp_path / "after")
    train(train_settings(steps=1, evaluate_every=1, warmup_steps=0, learning_rate=1e-30), 0, states, method)[0](
        tmp_path / "before"
    )
    before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("before", "after"))
    model, steps = MultiTaskModel.from_pretrained(tmp_path / "after"), {}
    for name, tensor in after.items():
        scope, _, rest = name.partition(".")
        kind = model.method.parameter_kind(rest) if scope == "method" else model.method.backbone_kind
        steps[kind] = max(steps.get(kind, 0.0), float((tensor - before[name]).abs().max()) / RATE)
    return steps, history


def test_the_first_step_of_adam_moves_each_kind_by_its_learning_rate(train, tmp_path):
    steps, history = measure_steps(train, tmp_path, **OFFSETS, learning_rate_multipliers=MULTIPLIERS)
    # the generators start at 0, so that their inputs have no gradient yet
    assert steps == pytest.approx({"generators": 1.0, "projector": 0.0, **MULTIPLIERS}, rel=0.02)
    measures = history[-1]["diagnostics"]
    assert {name for name in measures if name.startswith("update/")} == {f"update/{kind}" for kind in steps}
    assert measures["update/embeddings"] == 0.0
    assert measures["update/adapters"] > 0.0
    assert {"task_share", "input_cosine", "offset_ratio"} < measures.keys()


def test_by_default_all_kinds_have_the_same_learning_rate(train, tmp_path):
    steps, _ = measure_steps(train, tmp_path)
    assert steps.keys() == {"generators", "generated_layer_norms", "projector", "embeddings", "layer_norms"}
    assert steps == pytest.approx(dict.fromkeys(steps, 1.0), rel=0.02)


def test_the_curve_shows_the_learning_rate_of_the_settings(toy_rows, toy_tokens, tasks, backbone_settings, tmp_path):
    method, rates = method_settings(NAME, learning_rate_multipliers={"projector": 3.0}), {}
    settings = train_settings(steps=4, warmup_steps=1, learning_rate=RATE)

    def record(step, values):
        rates.update({step: values["learning_rate"]} if "learning_rate" in values else {})

    arguments = (toy_rows, toy_tokens, tasks, backbone_settings, method, settings, 0, tmp_path)
    training.train(*arguments, lambda: record)
    assert rates == pytest.approx({1: 0.0, 2: RATE, 3: RATE * 2 / 3, 4: RATE / 3})


def test_gradients_are_clipped_together(train, tmp_path):
    _, history = train(train_settings(steps=2, evaluate_every=1), 0, tmp_path)
    for line in history:
        gradients = [value for name, value in line["diagnostics"].items() if name.startswith("gradient/")]
        assert 0.0 < torch.tensor(gradients).norm() <= 1.0 + 1e-5


@pytest.mark.parametrize(("share", "reported"), [(0.05, False), (0.99, True)])
def test_tasks_that_share_one_adapter_are_reported(share, reported, train, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(diagnostics, "COLLAPSED_SHARE", share)
    train(train_settings(steps=1, evaluate_every=1), 0, tmp_path)
    messages = [message for message in caplog.messages if message.startswith("the tasks have nearly the same adapter")]
    assert bool(messages) == reported
