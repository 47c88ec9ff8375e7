"""Properties of every method: shapes, parameters, and the inputs that weights depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from toys import PAPER, enlarge_weights, make_method, method_settings

from hyperformer.backbones.adapters import adapter
from hyperformer.core.errors import HyperFormerError
from hyperformer.methods import METHODS, group_tasks
from hyperformer.methods.base import Method

PRODUCTS = {"aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"}
FINE_TUNING = ["fine_tuning_multi_task", "fine_tuning_per_task"]
PER_TASK = ["adapters_per_task", "fine_tuning_per_task"]
every_method = pytest.mark.parametrize("name", [name for name in METHODS if name not in FINE_TUNING])
hypernetworks = pytest.mark.parametrize("name", ["hyperformer_plus_plus", "hyperformer"])


@every_method
def test_weights_have_the_shapes_of_adapters_stacked_over_sites(name):
    weights = make_method(name).weights(torch.tensor([2, 0]))
    n, sites, r, d = 2, 10, 4, 16
    assert {name: tuple(tensor.shape) for name, tensor in vars(weights).items()} == {
        "down": (n, sites, r, d),
        "down_bias": (n, sites, r),
        "up": (n, sites, d, r),
        "up_bias": (n, sites, d),
        "gain": (n, sites, d),
        "shift": (n, sites, d),
    }


@every_method
def test_a_tasks_weights_do_not_depend_on_which_other_tasks_are_asked(name):
    method = enlarge_weights(make_method(name))
    together = method.weights(torch.tensor([2, 0, 1, 0]))
    for row, task in enumerate([2, 0, 1, 0]):
        alone = method.weights(torch.tensor([task]))
        for kind, tensor in vars(together).items():
            torch.testing.assert_close(tensor[row], getattr(alone, kind)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in (*FINE_TUNING, "shared_adapter")])
def test_every_task_and_every_site_has_different_weights(name):
    weights = enlarge_weights(make_method(name)).weights(torch.tensor([0, 1, 2]))
    shared = ("gain", "shift") if name.startswith("adapters") else ()
    for kind, tensor in vars(weights).items():
        rows = tensor.detach().flatten(2)  # [n, sites, numbers]
        rows = rows[0] if kind in shared else rows.flatten(0, 1)
        distances = torch.cdist(rows, rows) + torch.eye(len(rows)) * 1e3
        assert float(distances.min()) > 1e-3, kind


def test_all_tasks_of_a_shared_adapter_have_its_weights():
    method = enlarge_weights(make_method("shared_adapter"))
    weights = method.weights(torch.tensor([0, 2]))
    for kind, tensor in vars(weights).items():
        module = method.norm if kind in ("gain", "shift") else method.adapter
        assert all(torch.equal(task, getattr(module, kind)) for task in tensor)


def test_the_tasks_of_multi_task_adapters_share_their_layer_norms():
    weights = enlarge_weights(make_method("adapters_multi_task")).weights(torch.tensor([0, 2]))
    assert torch.equal(weights.gain[0], weights.gain[1])
    assert torch.equal(weights.shift[0], weights.shift[1])


def test_a_sites_weights_of_hyperformer_are_its_rows_of_the_generators():
    method = enlarge_weights(make_method("hyperformer"))
    weights = method.weights(torch.tensor([1]))
    projected = method.projector(method.task_embedding.weight[1])
    up = method.generators.up(projected).view(10, 16, 4)
    torch.testing.assert_close(weights.up[0], up, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@hypernetworks
def test_a_fresh_hypernetworks_adapters_are_nearly_the_identity(name):
    weights = make_method(name, width=32, **PAPER).weights(torch.arange(3))
    assert float(weights.gain.abs().max()) < 0.5
    assert float(weights.shift.abs().max()) < 0.5
    x = torch.randn(5, 7, 32, generator=torch.Generator().manual_seed(0))
    for site in range(weights.gain.shape[1]):
        moved = adapter(x, **{kind: t[1, site] for kind, t in vars(weights).items()}, activation=torch.nn.ReLU()) - x
        assert 0 < float(moved.norm() / x.norm()) < 0.2


def count_products(method: Method, task_ids: Tensor) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiled, torch.no_grad():
        method.weights(task_ids)
    return sum(event.count for event in profiled.key_averages() if event.key in PRODUCTS)


@pytest.mark.parametrize(
    ("name", "expected"), [("hyperformer_plus_plus", 2 * 8), ("hyperformer", 8), ("adapters_multi_task", 0)]
)
def test_the_number_of_matrix_products_depends_on_neither_tasks_nor_sites(name, expected):
    """A projector has two products, its generators six; HyperFormer++ has both for each stack."""
    assert count_products(make_method(name, tasks=1, encoder=1, decoder=1), torch.tensor([0])) == expected
    assert count_products(make_method(name, tasks=6, encoder=1, decoder=1), torch.arange(6)) == expected
    assert count_products(make_method(name, tasks=6, encoder=5, decoder=7), torch.arange(6)) == expected


@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_adds_no_weights(name):
    method = make_method(name)
    assert method.weights(torch.tensor([0])) is None
    assert not list(method.parameters())
    assert not method.sites
    assert method.trains_backbone


@pytest.mark.parametrize("name", list(METHODS))
def test_all_tasks_are_trained_in_one_model_or_each_in_its_own(name):
    groups = [["a"], ["b"], ["c"]] if name in PER_TASK else [["a", "b", "c"]]
    assert group_tasks(method_settings(name), ["a", "b", "c"]) == groups


@every_method
def test_training_changes_every_tensor_of_the_method(name):
    method = make_method(name)
    assert set(dict(method.named_parameters())) == set(method.state_dict())


@every_method
@pytest.mark.parametrize("factor", [5, 32])
def test_a_reduction_factor_that_does_not_divide_the_width_is_refused(name, factor):
    with pytest.raises(HyperFormerError, match=f"reduction_factor is {factor}.*divisor.*16"):
        make_method(name, width=16, reduction_factor=factor)


# --- ablations


@every_method
@pytest.mark.parametrize("positions", ["feed_forward", "self_attention"])
@pytest.mark.parametrize("stacks", ["both", "encoder", "decoder"])
def test_adapters_may_be_at_one_position_and_in_one_stack_only(name, positions, stacks):
    method = make_method(name, positions=positions, stacks=stacks)
    position = 0 if positions == "feed_forward" else 1
    assert {site.position for site in method.sites} == {position}
    assert {site.stack for site in method.sites} == ({"encoder", "decoder"} if stacks == "both" else {stacks})
    assert len(method.sites) == {"both": 5, "encoder": 3, "decoder": 2}[stacks]
    weights = enlarge_weights(method).weights(torch.tensor([0, 1]))
    assert all(tensor.shape[:2] == (2, len(method.sites)) for tensor in vars(weights).values())


@hypernetworks
def test_without_a_projector_the_generators_read_the_embeddings(name):
    method = enlarge_weights(make_method(name, projector=None))
    assert not [module for module in method.modules() if isinstance(module, torch.nn.ReLU)]
    weights = method.weights(torch.tensor([2]))
    if name == "hyperformer":
        wanted = method.generators.up(method.task_embedding.weight[2]).view(10, 16, 4)
    else:
        stack, site = method.stacks["decoder"], method.sites[-1]
        embeddings = (
            method.task_embedding.weight[2],
            stack.layer_embedding.weight[site.layer],
            stack.position_embedding.weight[site.position],
        )
        wanted = stack.generators.up(stack.norm(torch.cat(embeddings))).view(1, 16, 4)
    torch.testing.assert_close(weights.up[0, -1], wanted[-1], rtol=1e-5, atol=1e-5)


@hypernetworks
def test_an_unconditional_layer_norm_is_trained_per_site_and_shared_by_the_tasks(name):
    method = make_method(name, layer_norm="unconditional")
    weights = method.weights(torch.tensor([0, 1]))
    assert torch.equal(weights.gain, torch.ones_like(weights.gain))
    assert not weights.shift.any()
    weights = enlarge_weights(method).weights(torch.tensor([0, 1]))
    assert torch.equal(weights.gain[0], weights.gain[1])
    assert float(torch.pdist(weights.gain[0].detach()).min()) > 1e-3
    assert sum(name.endswith(("norm.gain", "norm.shift")) for name in dict(method.named_parameters())) >= 2


@hypernetworks
@torch.no_grad()
def test_a_conditional_gain_may_start_at_one(name):
    from_zero, from_one = (
        make_method(name, layer_norm=kind).weights(torch.arange(3)) for kind in ("conditional", "conditional_from_one")
    )
    torch.testing.assert_close(from_one.gain, from_zero.gain + 1)
    assert torch.equal(from_one.shift, from_zero.shift)
    assert float(from_zero.gain.abs().max()) < 0.5


def test_without_sharing_over_layers_each_layer_has_separate_generators():
    method = enlarge_weights(make_method("hyperformer_plus_plus", share_layers=False))
    assert not [name for name in dict(method.named_parameters()) if "layer_embedding" in name]
    weights = method.weights(torch.tensor([1]))
    for index in (0, 3, 5, 6, 9):
        site = method.sites[index]
        stack = method.stacks[site.stack]
        layers = len([s for s in method.sites if s.stack == site.stack]) // 2
        joint = torch.cat([method.task_embedding.weight[1], stack.position_embedding.weight[site.position]])
        source = stack.norm(stack.projector(joint))
        wanted = stack.generators.down(source).view(layers, 4, 16)[site.layer]
        torch.testing.assert_close(weights.down[0, index], wanted, rtol=1e-4, atol=1e-5)


COMMON = [
    {"projector": None},
    {"layer_norm": "unconditional"},
    {"layer_norm": "conditional_from_one"},
    {"positions": "feed_forward"},
    {"stacks": "decoder"},
]


@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, changes) for name in ("hyperformer", "hyperformer_plus_plus") for changes in COMMON]
    + [("hyperformer_plus_plus", {"share_layers": False})],
)
def test_every_tensor_of_an_ablated_method_is_trained(name, changes):
    method = enlarge_weights(make_method(name, **changes))
    weights = method.weights(torch.arange(3))
    sum((tensor**2).sum() for tensor in vars(weights).values()).backward()
    untrained = [tensor for tensor, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untrained
