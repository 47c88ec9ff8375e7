"""Forms of HyperFormer++ that depart from the paper: shared adapter, product of embeddings, offsets of layer norms."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from toys import enlarge_weights, make_method, make_sites, method_settings

from hyperformer.core.errors import HyperFormerError
from hyperformer.methods.base import compute_task_share
from hyperformer.methods.diagnostics import is_collapsed
from hyperformer.settings import TransferSettings
from hyperformer.training.transfer import check_task_specific

NAME = "hyperformer_plus_plus"
PROJECTIONS = ("down", "down_bias", "up", "up_bias")
OFFSETS = {"shared_adapter": True, "embeddings": "product", "projector": None, "layer_norm": "conditional_offset"}
"""All forms together."""
TASKS = torch.arange(3)


@pytest.mark.parametrize("share_layers", [True, False])
def test_before_training_all_tasks_have_the_shared_adapter_and_layer_norm(share_layers):
    method = make_method(NAME, **OFFSETS, share_layers=share_layers)
    weights = method.weights(TASKS)
    for name in PROJECTIONS:
        assert all(torch.equal(task, getattr(method.shared_adapter, name)) for task in getattr(weights, name))
    assert torch.equal(weights.gain, torch.ones_like(weights.gain))
    assert not weights.shift.any()
    identity = make_method(NAME, **OFFSETS, adapter_init="identity").weights(TASKS)
    assert not identity.gain.any()


@pytest.mark.parametrize("share_layers", [True, False])
def test_weights_are_the_sum_of_shared_and_generated_ones(share_layers):
    method = enlarge_weights(make_method(NAME, **OFFSETS, share_layers=share_layers))
    generated, weights = method.generate(TASKS), method.weights(TASKS)
    for name in PROJECTIONS:
        difference = getattr(weights, name) - getattr(generated, name)
        torch.testing.assert_close(difference, getattr(method.shared_adapter, name).expand_as(difference))
    assert torch.equal(weights.gain, generated.gain)
    assert torch.equal(weights.shift, generated.shift)


def test_generators_read_the_product_of_the_embeddings_of_task_layer_and_position():
    method = enlarge_weights(make_method(NAME, **OFFSETS))
    weights = method.generate(TASKS)
    for index, site in enumerate(make_sites(3, 2)):
        hypernetwork = method.stacks[site.stack]
        product = (
            method.task_embedding.weight[1]
            * hypernetwork.layer_embedding.weight[site.layer]
            * hypernetwork.position_embedding.weight[site.position]
        )
        inputs = hypernetwork.norm(product)
        down = (hypernetwork.generators.down.weight @ inputs).view(4, 16)
        torch.testing.assert_close(weights.down[1, index], down, rtol=1e-4, atol=1e-5)
        norm = hypernetwork.generators.norm
        gain = norm.shared.gain[index if site.stack == "encoder" else index - 6] + norm.gain.weight @ inputs
        torch.testing.assert_close(weights.gain[1, index], gain, rtol=1e-4, atol=1e-5)


def test_embeddings_of_a_product_start_as_signs():
    method = make_method(NAME, tasks=50, embeddings="product", task_embedding_dim=64)
    assert set(method.task_embedding.weight.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(method.task_embedding.weight.detach().mean())) < 0.1
    assert set(method.stacks["encoder"].layer_embedding.weight.flatten().tolist()) == {-1.0, 1.0}


def test_a_projector_can_follow_the_product():
    method = make_method(NAME, embeddings="product")
    assert method.stacks["encoder"].projector[0].in_features == 6
    assert method.weights(TASKS).down.shape == (3, 10, 4, 16)


# --- kinds of parameters


def kinds_of(name, **changes):
    method = make_method(name, **changes)
    kinds = {}
    for parameter, _ in method.named_parameters():
        kinds.setdefault(method.parameter_kind(parameter), set()).add(parameter.split(".")[-1])
    return kinds


def test_every_parameter_of_a_hypernetwork_has_its_kind():
    projections = {"weight"}
    assert kinds_of(NAME, **{**OFFSETS, "projector": {"hidden_dim": 8, "output_dim": 8}}) == {
        "generators": projections,
        "generated_layer_norms": projections,
        "layer_norms": {"gain", "shift"},
        "adapters": set(PROJECTIONS),
        "embeddings": {"weight"},
        "projector": {"weight", "bias"},
    }
    paper = {"weight", "bias"}
    assert kinds_of(NAME) == {
        "generators": paper, "generated_layer_norms": paper, "embeddings": {"weight"}, "projector": paper,
    }  # fmt: skip
    assert kinds_of("hyperformer", layer_norm="unconditional") == {
        "generators": paper, "layer_norms": {"gain", "shift"}, "embeddings": {"weight"}, "projector": paper,
    }  # fmt: skip


def test_adapters_and_layer_norms_of_other_methods_have_their_kinds():
    for name in ("adapters_multi_task", "shared_adapter"):
        assert kinds_of(name) == {"adapters": set(PROJECTIONS), "layer_norms": {"gain", "shift"}}


def test_the_multiplier_of_a_kind_is_the_setting_and_1_by_default():
    method = make_method(NAME, learning_rate_multipliers={"embeddings": 0, "layer_norms": 15})
    factors = {kind: method.multiplier(kind) for kind in ("embeddings", "layer_norms", "heads", "generators")}
    assert factors == {"embeddings": 0, "layer_norms": 15, "heads": 1, "generators": 1}
    with pytest.raises(ValidationError, match=r"learning_rate_multipliers\.generators"):
        method_settings("adapters_multi_task", learning_rate_multipliers={"generators": 2})


def test_task_specific_transfer_is_refused_if_the_task_specific_weights_are_frozen():
    settings = TransferSettings(
        checkpoint="c", steps=1, batch_size=1, learning_rate=1e-3, warmup_steps=0, train="task_specific"
    )
    check_task_specific(settings, NAME, make_method(NAME))
    frozen = make_method(NAME, learning_rate_multipliers={"embeddings": 0})
    with pytest.raises(HyperFormerError, match=r"\(embeddings\) have the factor 0 in .* Use 'all'"):
        check_task_specific(settings, NAME, frozen)


# --- measures


def test_the_task_share_is_0_for_equal_adapters_and_its_limit_for_independent_ones():
    weights = enlarge_weights(make_method("adapters_multi_task", tasks=4)).weights(torch.arange(4))
    assert compute_task_share(weights) == pytest.approx(3 / 4, abs=0.03)
    equal = enlarge_weights(make_method("shared_adapter", tasks=4)).weights(torch.arange(4))
    assert compute_task_share(equal) == pytest.approx(0.0, abs=1e-6)
    assert compute_task_share(make_method(NAME, shared_adapter=True).generate(TASKS)) == 0.0


@torch.no_grad()
def test_the_cosine_of_inputs_is_the_mean_over_pairs_of_tasks_and_sites():
    method = make_method(NAME)
    cosines = [
        float(torch.cosine_similarity(inputs[a, site], inputs[b, site], dim=0))
        for inputs in method.generator_inputs(TASKS)
        for site in range(inputs.shape[1])
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert method.diagnose()["input_cosine"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)


@torch.no_grad()
def test_the_offset_ratio_is_relative_to_the_shared_adapter():
    method = enlarge_weights(make_method(NAME, **OFFSETS))
    generated, shared = method.generate(TASKS), method.shared_adapter
    offsets = torch.cat([generated.down.flatten(1), generated.up.flatten(1)], dim=1).norm(dim=1)  # of each task
    size = torch.cat([shared.down.flatten(), shared.up.flatten()]).norm()
    expected = float(offsets.square().mean().sqrt() / size)
    assert method.diagnose()["offset_ratio"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["shared_adapter", "fine_tuning_multi_task"])
def test_methods_without_task_specific_adapters_have_no_measures(name):
    assert make_method(name).diagnose() == {}
    assert not is_collapsed({})


@pytest.mark.parametrize("name", [NAME, "hyperformer", "adapters_multi_task"])
def test_one_task_has_no_measures(name):
    assert make_method(name, tasks=1).diagnose() == {}


def test_tasks_with_nearly_equal_adapters_have_collapsed():
    method = enlarge_weights(make_method(NAME))
    assert not is_collapsed(method.diagnose())
    with torch.no_grad():
        method.task_embedding.weight.copy_(method.task_embedding.weight[:1].expand(3, -1))
    assert is_collapsed(method.diagnose())
