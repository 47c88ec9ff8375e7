"""HyperFormer++: inputs of its hypernetworks and their initialisation."""

from __future__ import annotations

import pytest
import torch
from toys import PAPER, enlarge_weights, make_method, make_sites


def test_a_sites_weights_follow_from_the_embeddings_of_its_task_layer_and_position():
    method = enlarge_weights(make_method("hyperformer_plus_plus"))
    sites = make_sites(3, 2)
    weights = method.weights(torch.tensor([1]))
    for index in (0, 3, 5, 6, 9):  # of both stacks
        site = sites[index]
        hypernetwork = method.stacks[site.stack]
        embeddings = (
            method.task_embedding.weight[1],
            hypernetwork.layer_embedding.weight[site.layer],
            hypernetwork.position_embedding.weight[site.position],
        )
        first, _, second = hypernetwork.projector
        hidden = (first.weight @ torch.cat(embeddings) + first.bias).clamp(min=0)
        joint = second.weight @ hidden + second.bias
        joint = (joint - joint.mean()) / (joint.var(correction=0) + 1e-6).sqrt()
        joint = joint * hypernetwork.norm.weight + hypernetwork.norm.bias
        for name in ("down", "up_bias", "norm.gain"):
            linear = hypernetwork.generators.get_submodule(name)
            wanted = linear.weight @ joint + linear.bias
            torch.testing.assert_close(
                getattr(weights, name.removeprefix("norm."))[0, index].flatten(), wanted, rtol=1e-4, atol=1e-5
            )


def test_the_generators_start_small_and_the_task_embeddings_at_one():
    method = make_method("hyperformer_plus_plus", tasks=50, **PAPER)
    assert float(method.task_embedding.weight.detach().std()) == pytest.approx(1.0, rel=0.1)
    linears = [module for module in method.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 2 * 8
    for linear in linears:
        assert float(linear.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
        assert not linear.bias.detach().any()
