"""HyperFormer++: shapes, sizes, and what its weights depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hyperformer import methods
from hyperformer.backbones.adapters import adapter
from hyperformer.config import MethodSettings
from hyperformer.methods import Method
from hyperformer.types import HyperFormerError, Site

PRODUCTS = {"aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"}


def all_sites(encoder: int, decoder: int) -> list[Site]:
    return [
        Site(stack, layer, position)
        for stack, layers in (("encoder", encoder), ("decoder", decoder))
        for layer in range(layers)
        for position in (0, 1)
    ]


def settings(**changes: object) -> MethodSettings:
    small = {"reduction_factor": 4, "task_embedding": 6, "projector_hidden": 10, "projected": 8}
    return MethodSettings(name="hyperformer++", **{**small, **changes})


def make(tasks: int = 3, encoder: int = 3, decoder: int = 2, width: int = 16, **changes: object) -> Method:
    torch.manual_seed(0)
    return methods.make(settings(**changes), [f"task{i}" for i in range(tasks)], all_sites(encoder, decoder), width)


def loud(method: Method) -> Method:
    """Weights of size 1, so that every input matters."""
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.5)
    return method


def products(method: Method, task_ids: Tensor) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiled, torch.no_grad():
        method.weights(task_ids)
    return sum(event.count for event in profiled.key_averages() if event.key in PRODUCTS)


@pytest.mark.parametrize(
    ("width", "layers", "added"), [(512, 6, 2_399_392), (768, 12, 5_163_440)], ids=["t5-small", "t5-base"]
)
def test_the_parameters_added_to_a_t5_are_those_of_the_paper(width, layers, added):
    paper = {"reduction_factor": 32, "task_embedding": 64, "projector_hidden": 128, "projected": 64}
    with torch.device("meta"):
        method = methods.make(settings(**paper), list("abcdefgh"), all_sites(layers, layers), width)
    assert sum(parameter.numel() for parameter in method.parameters()) == added


def test_weights_have_the_shapes_of_adapters_stacked_over_sites():
    weights = make().weights(torch.tensor([2, 0]))
    n, sites, r, d = 2, 10, 4, 16
    assert {name: tuple(tensor.shape) for name, tensor in vars(weights).items()} == {
        "down": (n, sites, r, d),
        "down_bias": (n, sites, r),
        "up": (n, sites, d, r),
        "up_bias": (n, sites, d),
        "gain": (n, sites, d),
        "shift": (n, sites, d),
    }


def test_a_tasks_weights_do_not_depend_on_which_other_tasks_are_asked():
    method = loud(make())
    together = method.weights(torch.tensor([2, 0, 1, 0]))
    for row, task in enumerate([2, 0, 1, 0]):
        alone = method.weights(torch.tensor([task]))
        for name, tensor in vars(together).items():
            torch.testing.assert_close(tensor[row], getattr(alone, name)[0], rtol=0, atol=1e-6)


def test_every_task_and_every_site_has_weights_of_its_own():
    weights = loud(make()).weights(torch.tensor([0, 1, 2]))
    for tensor in vars(weights).values():
        rows = tensor.detach().flatten(2).flatten(0, 1)  # [n * sites, numbers]
        apart = torch.cdist(rows, rows) + torch.eye(len(rows)) * 1e3
        assert float(apart.min()) > 1e-3


def test_a_sites_weights_follow_from_the_embeddings_of_its_task_layer_and_position():
    method = loud(make())
    sites = all_sites(3, 2)
    weights = method.weights(torch.tensor([1]))
    for place in (0, 3, 5, 6, 9):  # of either stack
        site = sites[place]
        hypernetwork = method.stacks[site.stack]
        parts = (
            method.task_embedding.weight[1],
            hypernetwork.layer_embedding.weight[site.layer],
            hypernetwork.position_embedding.weight[site.position],
        )
        first, _, second = hypernetwork.projector
        hidden = (first.weight @ torch.cat(parts) + first.bias).clamp(min=0)
        joint = second.weight @ hidden + second.bias
        joint = (joint - joint.mean()) / (joint.var(correction=0) + 1e-6).sqrt()
        joint = joint * hypernetwork.norm.weight + hypernetwork.norm.bias
        for name in ("down", "up_bias", "gain"):
            linear = getattr(hypernetwork, name)
            wanted = linear.weight @ joint + linear.bias
            torch.testing.assert_close(getattr(weights, name)[0, place].flatten(), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_fresh_methods_adapters_are_nearly_the_identity():
    weights = make(width=32, task_embedding=64, projector_hidden=128, projected=64).weights(torch.arange(3))
    assert float(weights.gain.abs().max()) < 0.5
    assert float(weights.shift.abs().max()) < 0.5
    x = torch.randn(5, 7, 32, generator=torch.Generator().manual_seed(0))
    for site in range(weights.gain.shape[1]):
        moved = adapter(x, **{name: t[1, site] for name, t in vars(weights).items()}, activation=torch.nn.ReLU()) - x
        assert 0 < float(moved.norm() / x.norm()) < 0.2


def test_the_generators_start_small_and_the_task_embeddings_at_one():
    method = make(tasks=50, task_embedding=64, projector_hidden=128, projected=64)
    assert float(method.task_embedding.weight.detach().std()) == pytest.approx(1.0, rel=0.1)
    linears = [module for module in method.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 2 * 8
    for linear in linears:
        assert float(linear.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
        assert not linear.bias.detach().any()


def test_the_number_of_matrix_products_depends_on_neither_tasks_nor_sites():
    few = products(make(tasks=1, encoder=1, decoder=1), torch.tensor([0]))
    assert few == 2 * 8  # a stack: two of the projector and six generators
    assert products(make(tasks=6, encoder=1, decoder=1), torch.arange(6)) == few
    assert products(make(tasks=6, encoder=5, decoder=7), torch.arange(6)) == few


def test_all_tasks_are_trained_in_one_model():
    assert make().groups(["a", "b", "c"]) == [["a", "b", "c"]]


def test_training_changes_every_tensor_of_the_method():
    method = make()
    assert set(method.trained_names()) == set(method.state_dict())


@pytest.mark.parametrize("factor", [5, 32])
def test_a_reduction_factor_that_leaves_no_whole_bottleneck_is_refused(factor):
    with pytest.raises(HyperFormerError, match=f"reduction_factor is {factor}.*divisor.*16"):
        make(width=16, reduction_factor=factor)
