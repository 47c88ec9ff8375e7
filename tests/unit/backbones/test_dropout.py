"""The cheap dropout does what torch's does."""

import pytest
import torch
from torch import nn

from hyperformer.backbones.dropout import Dropout, hasten


@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_the_share_that_is_dropped_and_the_scale_of_the_rest_are_dropouts_own(p):
    torch.manual_seed(0)
    found = Dropout(p).train()(torch.ones(1000, 1001))
    dropped = (found == 0).double().mean().item()
    assert dropped == pytest.approx(p, abs=4 * (p * (1 - p) / found.numel()) ** 0.5 + 1e-5)
    assert found[found != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-2)
    assert found.double().mean().item() == pytest.approx(1, abs=0.1 if p > 0.9 else 0.01)


def test_elements_that_share_a_random_word_fall_by_themselves():
    torch.manual_seed(0)
    kept = (Dropout(0.5).train()(torch.ones(200_000, 4)) != 0).double()
    assert torch.corrcoef(kept.T).sub(torch.eye(4)).abs().max() < 0.01


def test_the_gradient_is_of_what_was_kept():
    x = torch.randn(7, 3, requires_grad=True)
    found = Dropout(0.5).train()(x)
    found.sum().backward()
    assert torch.equal(x.grad != 0, found != 0)
    assert torch.allclose(x.grad * x, found)


def test_everything_falls_where_all_is_to_fall():
    assert not Dropout(1.0).train()(torch.ones(5)).any()


def test_evaluating_changes_nothing_and_draws_nothing():
    before = torch.get_rng_state()
    x = torch.ones(5)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_numbers_fall_as_torchs_own():
    x = torch.ones(1000, dtype=torch.bfloat16)
    torch.manual_seed(0)
    found = Dropout(0.5).train()(x)
    torch.manual_seed(0)
    assert torch.equal(found, nn.Dropout(0.5).train()(x))


def test_every_plain_dropout_of_a_model_is_replaced():
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2), nn.Dropout1d(0.3))
    model = nn.Sequential(inner, nn.Dropout(0.1)).eval()
    hasten(model)
    assert not any(m.training for m in model.modules())
    assert [type(m) for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout1d)] == [
        Dropout,
        nn.Dropout1d,
        Dropout,
    ]
    assert [m.p for m in model.modules() if isinstance(m, Dropout)] == [0.2, 0.1]
