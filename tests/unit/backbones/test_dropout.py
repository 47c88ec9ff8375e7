"""The cheap dropout, compared with torch's."""

import pytest
import torch
from torch import nn

from hyperformer.backbones.dropout import Dropout, replace_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_the_share_that_is_dropped_and_the_scale_of_the_rest_are_those_of_dropout(p):
    torch.manual_seed(0)
    output = Dropout(p).train()(torch.ones(1000, 1001))
    dropped = (output == 0).double().mean().item()
    assert dropped == pytest.approx(p, abs=4 * (p * (1 - p) / output.numel()) ** 0.5 + 1e-5)
    assert output[output != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-2)
    assert output.double().mean().item() == pytest.approx(1, abs=0.1 if p > 0.9 else 0.01)


def test_elements_that_share_a_random_number_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5).train()(torch.ones(200_000, 4)) != 0).double()
    assert torch.corrcoef(kept.T).sub(torch.eye(4)).abs().max() < 0.01


def test_only_kept_elements_have_a_gradient():
    x = torch.randn(7, 3, requires_grad=True)
    output = Dropout(0.5).train()(x)
    output.sum().backward()
    assert torch.equal(x.grad != 0, output != 0)
    assert torch.allclose(x.grad * x, output)


def test_everything_is_dropped_with_probability_one():
    assert not Dropout(1.0).train()(torch.ones(5)).any()


def test_evaluation_changes_nothing_and_draws_no_random_numbers():
    before = torch.get_rng_state()
    x = torch.ones(5)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_elements_are_dropped_in_bf16():
    x = torch.ones(1000)
    torch.manual_seed(0)
    output = Dropout(0.3).train()(x)
    torch.manual_seed(0)
    half = Dropout(0.3).train()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), output, rtol=1e-2, atol=0)


def test_every_plain_dropout_of_a_model_is_replaced():
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2), nn.Dropout1d(0.3))
    model = nn.Sequential(inner, nn.Dropout(0.1)).eval()
    replace_dropout(model)
    assert not any(m.training for m in model.modules())
    assert [type(m) for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout1d)] == [
        Dropout,
        nn.Dropout1d,
        Dropout,
    ]
    assert [m.p for m in model.modules() if isinstance(m, Dropout)] == [0.2, 0.1]
