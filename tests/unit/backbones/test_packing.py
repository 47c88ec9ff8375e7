"""Packed batches: their losses and gradients are those of padded rows and of rows alone, in every layout."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from encoders import ROWS as ENCODER_ROWS
from encoders import build_model as build_encoder
from encoders import make_batch, save_backbone
from torch.nn import functional as F
from transformers.models.bert.modeling_bert import BertSelfAttention
from transformers.models.t5.modeling_t5 import T5LayerNorm

from hyperformer.backbones import dropout, layers, packing, t5_layers
from hyperformer.backbones.encoder_graph import compute_token_types
from hyperformer.backbones.layers import LinearLayers
from hyperformer.backbones.packing import Packing
from hyperformer.core.types import AdapterWeights
from hyperformer.model.multi_task import MultiTaskModel

LENGTHS = [3, 9, 1, 9, 4, 12, 8]
TASKS = torch.tensor([2, 0, 0, 2, 0, 2, 2])  # task 1 has no rows


@pytest.fixture
def mask() -> torch.Tensor:
    return (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)).long()


@pytest.fixture(params=["t5", "encoder"])
def model(request, make_model, tmp_path: Path, texts: list[str]) -> MultiTaskModel:
    built = make_model() if request.param == "t5" else build_encoder(save_backbone(tmp_path, "bert", texts))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in built.method.parameters():
            parameter.normal_(std=0.3)
    return built.eval()


def gradients(model: MultiTaskModel, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses.mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_tokens_are_ordered_by_task_and_length_and_return_to_their_rows(mask):
    values = torch.arange(mask.numel()).view(mask.shape) * mask
    packed = Packing(mask, TASKS)
    assert packed.lengths.tolist() == [1, 4, 9, 3, 8, 9, 12]
    assert len(packed) == len(packed.pack(values)) == sum(LENGTHS)
    assert torch.equal(packed.unpack(packed.pack(values)), values)
    torch.testing.assert_close(packed.mean(packed.pack(values)), values.sum(1) / torch.tensor(LENGTHS))


@pytest.mark.parametrize("tasks", [None, TASKS])
def test_groups_have_rows_of_similar_length_and_all_tokens(mask, tasks):
    packed = Packing(mask, tasks)
    tokens = packed.pack(torch.arange(mask.numel()).view(mask.shape))
    groups = packed.pad(tokens.unsqueeze(1))
    assert len(groups) == len(packed.groups) > 2
    for group, padded in zip(packed.groups, groups, strict=True):
        assert padded.shape == (group.rows, group.length, 1)
        lengths = torch.full((group.rows,), group.length) if group.mask is None else group.mask.sum(1)
        assert lengths.min() >= packing.GROUP_RATIO * group.length
    assert torch.equal(packed.unpad(list(groups)).squeeze(1), tokens)


def test_groups_of_long_rows_are_small():
    groups = Packing(torch.ones(8, 400, dtype=torch.long)).groups
    assert [group.rows for group in groups] == [1] * 8
    groups = Packing(torch.ones(8, 256, dtype=torch.long)).groups
    assert [group.rows for group in groups] == [4, 4]


@pytest.mark.parametrize("kind", ["groups", "chunks"])
def test_padding_has_no_gradient(mask, kind):
    packed = Packing(mask, TASKS)
    x = torch.randn(sum(LENGTHS), 4, dtype=torch.float64, requires_grad=True)

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        if kind == "chunks":
            return packed.chunks.unpad(packed.chunks.pad(x).square())
        return packed.unpad([part.square() for part in packed.pad(x)])

    torch.testing.assert_close(there_and_back(x), x.square())
    assert torch.autograd.gradcheck(there_and_back, (x,))


def test_a_chunk_has_the_weights_of_its_task(mask, monkeypatch):
    monkeypatch.setattr(packing, "MIN_CHUNK", 5)
    chunks = Packing(mask, TASKS).chunks
    assert chunks.tasks.tolist() == [0] * 3 + [2] * 7
    weights = torch.randn(3, 2, 4)
    assert torch.equal(chunks.select(weights), weights[chunks.tasks])
    assert Packing(mask).chunks is None


def batch_of(model: MultiTaskModel):
    if hasattr(model.backbone, "t5"):
        tasks = [i % len(model.group) for i in range(12)]
        rows = [
            {"input_ids": [5 + (i * j) % 11 for j in range(2 + 3 * i)] + [1], "labels": [5 + i % 3, 6, 1][i % 2 :]}
            for i in range(12)
        ]
        return torch.tensor(tasks), model.backbone.collate(rows)
    batch = make_batch(model, ENCODER_ROWS)
    return batch.task_ids, batch.tensors


def test_a_batch_has_the_losses_and_gradients_of_its_rows_alone(model):
    task_ids, tensors = batch_of(model)
    together = model.row_losses(task_ids, tensors)
    width = tensors["input_ids"].shape[1]
    alone = []
    for row, task in enumerate(task_ids):
        length = int(tensors["attention_mask"][row].sum())
        cut = {n: t[row : row + 1, :length] if t.shape[1] == width else t[row : row + 1] for n, t in tensors.items()}
        alone.append(model.row_losses(task.unsqueeze(0), cut))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    expected = gradients(model, torch.cat(alone))
    for name, gradient in gradients(model, together).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", ["one group", "small chunks", "fused attention"])
def test_every_layout_has_the_same_losses_and_gradients(model, layout, monkeypatch):
    task_ids, tensors = batch_of(model)
    losses = model.row_losses(task_ids, tensors)
    expected = gradients(model, losses)
    if layout == "one group":  # as on a GPU
        divide = packing._divide
        monkeypatch.setattr(packing, "_divide", lambda lengths, whole: divide(lengths, True))
    elif layout == "small chunks":
        monkeypatch.setattr(packing, "MIN_CHUNK", 3)
    else:
        monkeypatch.setattr(layers, "attend", layers.attend_fused)
        monkeypatch.setattr(t5_layers, "attend", layers.attend_fused)
    other = model.row_losses(task_ids, tensors)
    torch.testing.assert_close(other, losses, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(model, other).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_dropout_is_where_transformers_has_it(model, monkeypatch):
    """Each dropout multiplies by a number that depends on its probability, instead of dropping elements."""

    def scale(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return x * (1.0 - p) if training else x

    monkeypatch.setattr(F, "dropout", scale)
    monkeypatch.setattr(dropout, "dropout", scale)
    monkeypatch.setattr(layers, "dropout", scale)
    _, tensors = batch_of(model)
    model.train()
    mask = tensors["attention_mask"]
    if hasattr(model.backbone, "t5"):
        got = model.backbone.loss(tensors, 0.0)
        logits, labels = model.backbone.t5(**tensors).logits, tensors["labels"]
        wanted = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1) / (labels >= 0).sum(1)
    else:
        encoder = model.backbone.encoder
        for block in encoder.encoder.layer:
            block.attention.self.__class__ = BertSelfAttention  # with its own call of dropout
        types = compute_token_types(tensors["input_ids"], model.backbone._separator)
        hidden = encoder(tensors["input_ids"], mask, types).last_hidden_state
        wanted = (hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
        got = model.backbone.embed(tensors["input_ids"], mask)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    model.eval()
    plain = model.backbone.embed(tensors["input_ids"], mask)
    assert not torch.allclose(plain, model.train().backbone.embed(tensors["input_ids"], mask), rtol=1e-2)


@pytest.mark.parametrize("absorbed", [True, False])
def test_attention_to_the_source_is_that_of_transformers(make_model, absorbed, monkeypatch):
    model = make_model(method="fine_tuning_multi_task").eval()
    monkeypatch.setattr(t5_layers, "is_absorbed", lambda *_: absorbed)
    task_ids, tensors = batch_of(model)
    losses = model.row_losses(task_ids, tensors)
    got = gradients(model, losses)
    logits = model.backbone.t5(**tensors).logits
    labels = tensors["labels"]
    wanted = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1) / (labels >= 0).sum(1)
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients(model, wanted).items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["adapters", "fine-tuning"])
def test_bf16_has_nearly_the_losses_and_gradients_of_float32(model, method):
    if method == "fine-tuning":
        model.backbone.requires_grad_(True)
    task_ids, tensors = batch_of(model)
    losses = model.row_losses(task_ids, tensors)
    expected = gradients(model, losses)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.row_losses(task_ids, tensors)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, losses, rtol=0.05, atol=0.05)
    assert not torch.equal(half, losses)
    for name, gradient in gradients(model, half).items():
        assert gradient.dtype == torch.float32
        if expected[name].norm() < 1e-5:  # keys' biases have none
            continue
        assert F.cosine_similarity(gradient.flatten(), expected[name].flatten(), dim=0) > 0.98, name


def test_recomputed_blocks_have_the_same_gradients_in_bf16(model):
    task_ids, tensors = batch_of(model)
    model.train()

    def step() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.row_losses(task_ids, tensors)
        return gradients(model, losses)

    stored = step()
    model.backbone.enable_gradient_checkpointing()
    for name, gradient in step().items():
        assert torch.equal(gradient, stored[name]), name


def test_one_task_with_infinite_weights_changes_no_other_row(model):
    task_ids, tensors = batch_of(model)
    method = model.method
    weights = method.weights

    def with_infinity(present: torch.Tensor) -> AdapterWeights:
        generated = weights(present)
        generated.down[present == task_ids[0]] = torch.inf
        return generated

    expected = model.row_losses(task_ids, tensors)
    method.weights = with_infinity
    losses = model.row_losses(task_ids, tensors)
    other = task_ids != task_ids[0]
    assert not losses[~other].isfinite().any()
    torch.testing.assert_close(losses[other], expected[other])


def test_frozen_weights_are_converted_once_and_again_when_they_change():
    linear, layer = LinearLayers(), torch.nn.Linear(3, 2).requires_grad_(False)
    first, _ = linear.convert(torch.bfloat16, layer)
    assert linear.convert(torch.bfloat16, layer)[0] is first
    assert not copy.deepcopy(linear)._converted
    layer.weight.mul_(2.0)
    assert torch.equal(linear.convert(torch.bfloat16, layer)[0], 2 * first)
    layer.requires_grad_(True)
    joined, bias = linear.convert(torch.bfloat16, layer, layer)
    assert joined.requires_grad
    assert joined.shape == (4, 3)
    assert bias.shape == (4,)


def test_the_rms_norm_is_t5s():
    norm = T5LayerNorm(6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(4, 6, requires_grad=True)
    torch.testing.assert_close(layers.rms_norm(x, norm), norm(x))
    wanted = torch.autograd.grad(norm(x).square().sum(), [x, norm.weight])
    got = torch.autograd.grad(layers.rms_norm(x, norm).square().sum(), [x, norm.weight])
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
