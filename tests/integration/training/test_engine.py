"""What one step computes: parts of a batch, recomputed activations, losses by task, and a loss that is lost."""

from __future__ import annotations

import pytest
import torch
from toys import all_sites, method_settings, no_dropout, train_settings
from transformers import TrainerCallback

from hyperformer import methods
from hyperformer.data import read_tokens
from hyperformer.training.engine import Parts, run_loop
from hyperformer.training.finetuning import mixed_batches
from hyperformer.types import HyperFormerError


class FirstGradient(TrainerCallback):
    """Keeps the gradient of the first step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step == 0:
            self.found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def work(make_model, toy_tokens):
    """Training the toy tasks with these settings."""

    def make(settings, model=None, dropout=True):
        model = model or make_model()
        if not dropout:
            no_dropout(model)
        parts = {name: (read_tokens(toy_tokens, name), 1 / len(model.tasks)) for name in model.tasks}
        return mixed_batches(model, parts, settings, 0)

    return make


def first_gradient(work, settings, state):
    found = FirstGradient()
    run_loop(work, settings, 0, state, [found])
    return found.found


@pytest.mark.parametrize(("parts", "ranks"), [(1, 1), (3, 1), (1, 2), (2, 4), (3, 2)])
def test_parts_and_ranks_share_a_batch_out_and_weigh_as_the_whole(work, parts, ranks):
    settings = train_settings(batch_size=17)
    toy = work(settings)
    for step in (0, 3):
        whole = sorted((row.task, row.number) for row in toy.rows(step))
        shares = [Parts(toy, 0, 8, parts, rank, ranks) for rank in range(ranks)]
        found = [share.part(step * parts + part) for share in shares for part in range(parts)]
        assert sorted((row.task, row.number) for part in found for row in part.rows) == whole
        # the mean over parts and ranks of weight · mean loss is the sum over rows / 17
        for part in found:
            assert part.weight / len(part.rows) / (parts * ranks) == pytest.approx(1 / 17)
        assert all(len(share) == 8 * parts for share in shares)


def test_parts_of_a_batch_hold_rows_of_like_length(work):
    share = Parts(work(train_settings(batch_size=18)), 0, 1, 3)
    lengths = [[len(row.tokens["input_ids"]) for row in share.part(number).rows] for number in range(3)]
    assert max(lengths[0]) <= min(lengths[1]) <= max(lengths[1]) <= min(lengths[2])


def test_a_batch_in_parts_has_the_gradient_of_the_whole(work, tmp_path):
    plain = train_settings(steps=1, batch_size=7)
    parted = train_settings(steps=1, batch_size=7, gradient_accumulation_steps=3)
    whole = first_gradient(work(plain, dropout=False), plain, tmp_path / "whole")
    parts = first_gradient(work(parted, dropout=False), parted, tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


def test_a_run_computes_in_its_own_precision_whatever_ran_before_it(work, tmp_path):
    first, second, third = (train_settings(steps=1, precision=precision) for precision in ("fp32", "bf16", "fp32"))
    full = first_gradient(work(first, dropout=False), first, tmp_path / "first")
    half = first_gradient(work(second, dropout=False), second, tmp_path / "second")
    again = first_gradient(work(third, dropout=False), third, tmp_path / "third")
    assert any(not torch.equal(half[name], value) for name, value in full.items())
    assert all(torch.equal(again[name], value) for name, value in full.items())


@pytest.mark.parametrize("method", ["hyperformer_plus_plus", "adapters_multi_task", "fine_tuning_multi_task"])
def test_activations_computed_anew_give_the_same_gradient(work, tmp_path, make_model, method):
    settings = train_settings(steps=1)
    kept = first_gradient(work(settings, make_model(method=method)), settings, tmp_path / "kept")
    model = make_model(method=method)
    model.backbone.checkpoint_gradients()
    blocks = [block for stack in (model.backbone.t5.encoder, model.backbone.t5.decoder) for block in stack.block]
    calls = []
    for block in blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    anew = first_gradient(work(settings, model), settings, tmp_path / "anew")
    assert len(calls) == 2 * len(blocks)
    assert kept.keys() == anew.keys()
    for name, value in kept.items():
        torch.testing.assert_close(anew[name], value, rtol=1e-5, atol=1e-7)


def test_curves_are_each_task_s_own_mean_loss_since_the_last_line(work, tmp_path):
    settings = train_settings(steps=4, learning_rate=1e-30)
    toy = work(settings, dropout=False)
    lines = {}
    run_loop(toy, settings, 0, tmp_path, save_every=4, curve=lambda step, values: lines.update({step: values}))
    assert list(lines) == [1, 2, 3, 4]
    for step, line in lines.items():
        rows = toy.rows(step - 1)
        with torch.no_grad():
            losses = toy.model(**toy.collate(rows))["row_losses"].tolist()
        assert line["loss/mean"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        for number, task in enumerate(toy.tasks):
            own = [loss for row, loss in zip(rows, losses, strict=True) if row.task == number]
            assert (f"loss/{task}" in line) == bool(own)
            if own:
                assert line[f"loss/{task}"] == pytest.approx(sum(own) / len(own), rel=1e-5)
        assert "learning_rate" in line


def test_a_loss_that_is_no_longer_finite_names_step_tasks_and_rows(work, tmp_path):
    settings = train_settings(steps=4).model_copy(update={"learning_rate": 1e37, "warmup_steps": 0})
    toy = work(settings)
    with pytest.raises(HyperFormerError, match=r"no longer finite at step 2 \(training rows of ") as caught:
        run_loop(toy, settings, 0, tmp_path)
    for row in toy.rows(1)[:5]:
        assert toy.tasks[row.task] in str(caught.value)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_one_row_s_loss_that_is_not_finite_is_named_alone(work, tmp_path, monkeypatch):
    settings = train_settings(steps=2)
    toy = work(settings)
    odd = toy.rows(0)[4]
    losses = toy.model.row_losses

    def poisoned(task_ids, tensors):
        found = losses(task_ids, tensors)
        return torch.where(torch.arange(len(found)) == 4, torch.nan, found)

    monkeypatch.setattr(toy.model, "row_losses", poisoned)
    with pytest.raises(
        HyperFormerError, match=rf"at step 1 \(training rows of {toy.tasks[odd.task]}, row {odd.number + 1}\)"
    ):
        run_loop(toy, settings, 0, tmp_path)


def test_the_number_of_matrix_products_is_that_of_one_task(make_model):
    """A step of a mixed batch multiplies no more often than one of a single task: nothing is computed a task."""

    def products(task_ids):
        model = make_model()
        rows = [{"input_ids": [5, 6, 7, 1], "labels": [4, 1]}] * len(task_ids)
        batch = model.backbone.collate(rows, task_ids)
        with torch.profiler.profile() as profile:
            model(batch.task_ids, **batch.tensors)["loss"].backward()
        named = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
        return sum(event.count for event in profile.key_averages() if event.key in named)

    assert products([0, 1, 2, 0, 1, 2]) == products([0, 1, 0, 1, 0, 1]) > 0


def test_the_number_of_matrix_products_that_generate_weights_is_independent_of_sites_and_tasks():
    def products(layers, tasks):
        names = [f"task{number}" for number in range(tasks)]
        method = methods.make(method_settings("hyperformer_plus_plus"), names, all_sites(layers, layers), 16, 0)
        with torch.profiler.profile() as profile:
            weights = method.weights(torch.arange(tasks))
            torch.stack([part.sum() for part in vars(weights).values()]).sum().backward()
        named = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
        return sum(event.count for event in profile.key_averages() if event.key in named)

    assert products(2, 2) == products(6, 2) == products(6, 50) > 0
