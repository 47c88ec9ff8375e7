"""The computation of a step: micro-batches, gradient checkpointing, losses by task, and losses that are not finite."""

from __future__ import annotations

import pytest
import torch
from toys import disable_dropout, make_sites, method_settings, train_settings
from transformers import TrainerCallback

from hyperformer import methods
from hyperformer.backbones import t5_layers
from hyperformer.core.errors import HyperFormerError
from hyperformer.data.tokens import read_tokens
from hyperformer.training.batches import MicroBatches
from hyperformer.training.jobs import build_mixture_job
from hyperformer.training.trainer import run_loop


class FirstGradient(TrainerCallback):
    """A callback that stores the gradient of the first step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step == 0:
            self.gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def make_job(make_model, toy_tokens):
    """Return a function that makes the training of the toy tasks with its settings."""

    def make(settings, model=None, dropout=True):
        model = model or make_model()
        if not dropout:
            disable_dropout(model)
        mixture = {name: (read_tokens(toy_tokens, name), 1 / len(model.tasks)) for name in model.tasks}
        return build_mixture_job(model, mixture, settings, 0)

    return make


def first_gradient(job, settings, state):
    callback = FirstGradient()
    run_loop(job, settings, 0, state, [callback])
    return callback.gradient


@pytest.mark.parametrize(("count", "ranks"), [(1, 1), (3, 1), (1, 2), (2, 4), (3, 2)])
def test_micro_batches_and_ranks_split_a_batch_and_weigh_as_much_as_it(make_job, count, ranks):
    settings = train_settings(batch_size=17)
    job = make_job(settings)
    for step in (0, 3):
        batch = sorted((row.task, row.number) for row in job.rows(step))
        datasets = [MicroBatches(job, 0, 8, count, rank, ranks) for rank in range(ranks)]
        micro_batches = [dataset.micro_batch(step * count + i) for dataset in datasets for i in range(count)]
        assert sorted((row.task, row.number) for item in micro_batches for row in item.rows) == batch
        # the mean over micro-batches and ranks of weight · mean loss is the sum over rows / 17
        for item in micro_batches:
            assert item.weight / len(item.rows) / (count * ranks) == pytest.approx(1 / 17)
        assert all(len(dataset) == 8 * count for dataset in datasets)


def test_micro_batches_hold_rows_of_similar_length(make_job):
    dataset = MicroBatches(make_job(train_settings(batch_size=18)), 0, 1, 3)
    lengths = [[len(row.tokens["input_ids"]) for row in dataset.micro_batch(number).rows] for number in range(3)]
    assert max(lengths[0]) <= min(lengths[1]) <= max(lengths[1]) <= min(lengths[2])


def test_micro_batches_have_the_gradient_of_their_batch(make_job, tmp_path):
    settings = train_settings(steps=1, batch_size=7)
    split_settings = train_settings(steps=1, batch_size=7, gradient_accumulation_steps=3)
    expected = first_gradient(make_job(settings, dropout=False), settings, tmp_path / "batch")
    gradient = first_gradient(make_job(split_settings, dropout=False), split_settings, tmp_path / "micro-batches")
    assert expected.keys() == gradient.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-6)


def test_the_precision_of_a_run_does_not_depend_on_earlier_runs(make_job, tmp_path):
    first, second, third = (train_settings(steps=1, precision=precision) for precision in ("fp32", "bf16", "fp32"))
    full = first_gradient(make_job(first, dropout=False), first, tmp_path / "first")
    half = first_gradient(make_job(second, dropout=False), second, tmp_path / "second")
    again = first_gradient(make_job(third, dropout=False), third, tmp_path / "third")
    assert any(not torch.equal(half[name], value) for name, value in full.items())
    assert all(torch.equal(again[name], value) for name, value in full.items())


@pytest.mark.parametrize("method", ["hyperformer_plus_plus", "adapters_multi_task", "fine_tuning_multi_task"])
def test_gradient_checkpointing_gives_the_same_gradient(make_job, tmp_path, make_model, method, monkeypatch):
    settings = train_settings(steps=1)
    expected = first_gradient(make_job(settings, make_model(method=method)), settings, tmp_path / "stored")
    model = make_model(method=method)
    model.backbone.enable_gradient_checkpointing()
    blocks = [block for stack in (model.backbone.t5.encoder, model.backbone.t5.decoder) for block in stack.block]
    calls, compute_block = [], t5_layers.compute_block
    monkeypatch.setattr(t5_layers, "compute_block", lambda *inputs: (calls.append(1), compute_block(*inputs))[1])
    gradient = first_gradient(make_job(settings, model), settings, tmp_path / "recomputed")
    assert len(calls) == 2 * len(blocks)
    assert expected.keys() == gradient.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-5, atol=1e-7)


def test_curves_are_each_task_s_mean_loss_since_the_last_line(make_job, tmp_path):
    settings = train_settings(steps=4, learning_rate=1e-30)
    job = make_job(settings, dropout=False)
    lines = {}
    run_loop(job, settings, 0, tmp_path, save_every=4, curve=lambda step, values: lines.update({step: values}))
    assert list(lines) == [1, 2, 3, 4]
    for step, line in lines.items():
        rows = job.rows(step - 1)
        with torch.no_grad():
            losses = job.model(**job.collate(rows))["row_losses"].tolist()
        assert line["loss/mean"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        for number, task in enumerate(job.tasks):
            task_losses = [loss for row, loss in zip(rows, losses, strict=True) if row.task == number]
            assert (f"loss/{task}" in line) == bool(task_losses)
            if task_losses:
                assert line[f"loss/{task}"] == pytest.approx(sum(task_losses) / len(task_losses), rel=1e-5)
        assert "learning_rate" in line


def test_a_loss_that_is_no_longer_finite_names_step_tasks_and_rows(make_job, tmp_path):
    settings = train_settings(steps=4).model_copy(update={"learning_rate": 1e37, "warmup_steps": 0})
    job = make_job(settings)
    with pytest.raises(HyperFormerError, match=r"no longer finite at step 2 \(training rows of ") as caught:
        run_loop(job, settings, 0, tmp_path)
    for row in job.rows(1)[:5]:
        assert job.tasks[row.task] in str(caught.value)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_only_the_row_whose_loss_is_not_finite_is_named(make_job, tmp_path, monkeypatch):
    settings = train_settings(steps=2)
    job = make_job(settings)
    invalid = job.rows(0)[4]
    losses = job.model.row_losses

    def poisoned(task_ids, tensors):
        values = losses(task_ids, tensors)
        return torch.where(torch.arange(len(values)) == 4, torch.nan, values)

    monkeypatch.setattr(job.model, "row_losses", poisoned)
    with pytest.raises(
        HyperFormerError, match=rf"at step 1 \(training rows of {job.tasks[invalid.task]}, row {invalid.number + 1}\)"
    ):
        run_loop(job, settings, 0, tmp_path)


def test_the_number_of_matrix_products_is_that_of_one_task(make_model):
    """A step of a mixed batch has as many products as one of a single task: there is no loop over tasks."""

    def count_products(task_ids):
        model = make_model()
        rows = [{"input_ids": [5, 6, 7, 1], "labels": [4, 1]}] * len(task_ids)
        batch = model.backbone.collate(rows)
        with torch.profiler.profile() as profile:
            model(torch.tensor(task_ids), **batch)["loss"].backward()
        operators = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
        return sum(event.count for event in profile.key_averages() if event.key in operators)

    assert count_products([0, 1, 2, 0, 1, 2]) == count_products([0, 1, 0, 1, 0, 1]) > 0


def test_the_number_of_matrix_products_that_generate_weights_is_independent_of_sites_and_tasks():
    def count_products(layers, tasks):
        names = [f"task{number}" for number in range(tasks)]
        method = methods.make_method(method_settings("hyperformer_plus_plus"), names, make_sites(layers, layers), 16, 0)
        with torch.profiler.profile() as profile:
            weights = method.weights(torch.arange(tasks))
            torch.stack([tensor.sum() for tensor in vars(weights).values()]).sum().backward()
        operators = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
        return sum(event.count for event in profile.key_averages() if event.key in operators)

    assert count_products(2, 2) == count_products(6, 2) == count_products(6, 50) > 0
