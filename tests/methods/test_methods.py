"""What holds for every method: shapes, sizes, and whose weights depend on what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from toys import a_method, all_sites, loud, method_settings

from hyperformer import methods
from hyperformer.backbones.adapters import adapter
from hyperformer.methods import METHODS, Method
from hyperformer.types import HyperFormerError

PRODUCTS = {"aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"}
PAPER = {"reduction_factor": 32, "task_embedding": 64, "projector_hidden": 128, "projected": 64}
every_method = pytest.mark.parametrize("name", [name for name in METHODS if name != "fine-tuning"])


@pytest.mark.parametrize(
    ("name", "width", "layers", "added"),
    [
        ("adapters-multitask", 512, 6, 3_271_680),
        ("hyperformer", 512, 6, 27_997_248),
        ("hyperformer++", 512, 6, 2_399_392),
        ("adapters-multitask", 768, 12, 14_533_632),
        ("hyperformer", 768, 12, 122_296_128),
        ("hyperformer++", 768, 12, 5_163_440),
    ],
)
def test_the_parameters_added_to_a_t5_are_those_of_the_paper(name, width, layers, added):
    sizes = PAPER if name.startswith("hyperformer") else {"reduction_factor": 32}
    with torch.device("meta"):
        method = methods.make(method_settings(name, **sizes), list("abcdefgh"), all_sites(layers, layers), width)
    assert sum(parameter.numel() for parameter in method.parameters()) == added


@every_method
def test_weights_have_the_shapes_of_adapters_stacked_over_sites(name):
    weights = a_method(name).weights(torch.tensor([2, 0]))
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
    method = loud(a_method(name))
    together = method.weights(torch.tensor([2, 0, 1, 0]))
    for row, task in enumerate([2, 0, 1, 0]):
        alone = method.weights(torch.tensor([task]))
        for kind, tensor in vars(together).items():
            torch.testing.assert_close(tensor[row], getattr(alone, kind)[0], rtol=0, atol=1e-6)


@every_method
def test_every_task_and_every_site_has_weights_of_its_own(name):
    weights = loud(a_method(name)).weights(torch.tensor([0, 1, 2]))
    shared = ("gain", "shift") if name == "adapters-multitask" else ()
    for kind, tensor in vars(weights).items():
        rows = tensor.detach().flatten(2)  # [n, sites, numbers]
        rows = rows[0] if kind in shared else rows.flatten(0, 1)
        apart = torch.cdist(rows, rows) + torch.eye(len(rows)) * 1e3
        assert float(apart.min()) > 1e-3, kind


def test_the_tasks_of_multi_task_adapters_share_their_layer_norms():
    weights = loud(a_method("adapters-multitask")).weights(torch.tensor([0, 2]))
    assert torch.equal(weights.gain[0], weights.gain[1])
    assert torch.equal(weights.shift[0], weights.shift[1])


def test_a_sites_weights_of_hyperformer_are_its_own_rows_of_the_generators():
    method = loud(a_method("hyperformer"))
    weights = method.weights(torch.tensor([1]))
    projected = method.projector(method.task_embedding.weight[1])
    up = method.generators.up(projected).view(10, 16, 4)
    torch.testing.assert_close(weights.up[0], up, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hyperformer++", "hyperformer"])
def test_a_fresh_hypernetworks_adapters_are_nearly_the_identity(name):
    weights = a_method(name, width=32, task_embedding=64, projector_hidden=128, projected=64).weights(torch.arange(3))
    assert float(weights.gain.abs().max()) < 0.5
    assert float(weights.shift.abs().max()) < 0.5
    x = torch.randn(5, 7, 32, generator=torch.Generator().manual_seed(0))
    for site in range(weights.gain.shape[1]):
        moved = adapter(x, **{kind: t[1, site] for kind, t in vars(weights).items()}, activation=torch.nn.ReLU()) - x
        assert 0 < float(moved.norm() / x.norm()) < 0.2


def products(method: Method, task_ids: Tensor) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiled, torch.no_grad():
        method.weights(task_ids)
    return sum(event.count for event in profiled.key_averages() if event.key in PRODUCTS)


@pytest.mark.parametrize(
    ("name", "expected"), [("hyperformer++", 2 * 8), ("hyperformer", 8), ("adapters-multitask", 0)]
)
def test_the_number_of_matrix_products_depends_on_neither_tasks_nor_sites(name, expected):
    """Two of a projector and six of its generators; HyperFormer++ has both for each stack."""
    assert products(a_method(name, tasks=1, encoder=1, decoder=1), torch.tensor([0])) == expected
    assert products(a_method(name, tasks=6, encoder=1, decoder=1), torch.arange(6)) == expected
    assert products(a_method(name, tasks=6, encoder=5, decoder=7), torch.arange(6)) == expected


def test_fine_tuning_has_no_weights_of_its_own():
    method = a_method("fine-tuning")
    assert method.weights(torch.tensor([0])) is None
    assert not method.trained_names()
    assert method.trains_backbone


@pytest.mark.parametrize("name", list(METHODS))
def test_all_tasks_are_trained_in_one_model(name):
    assert a_method(name).groups(["a", "b", "c"]) == [["a", "b", "c"]]


@every_method
def test_training_changes_every_tensor_of_the_method(name):
    method = a_method(name)
    assert set(method.trained_names()) == set(method.state_dict())


@every_method
@pytest.mark.parametrize("factor", [5, 32])
def test_a_reduction_factor_that_leaves_no_whole_bottleneck_is_refused(name, factor):
    with pytest.raises(HyperFormerError, match=f"reduction_factor is {factor}.*divisor.*16"):
        a_method(name, width=16, reduction_factor=factor)
