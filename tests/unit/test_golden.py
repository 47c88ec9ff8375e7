"""Comparison with the authors' implementation: our model with their weights has their outputs."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from hyperformer.backbones import adapters, t5_layers
from hyperformer.backbones.packing import Packing
from hyperformer.backbones.t5 import IGNORED
from hyperformer.core.types import AdapterWeights
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.settings import BackboneSettings, Methods, Tasks

FOLDER = Path(os.environ.get("HYPERFORMER_REFERENCE") or Path(__file__).parents[1] / "golden")
METHODS = {
    "hyperformer_plus_plus": "hyperformer_plus_plus",
    "hyperformer": "hyperformer",
    "adapters_multitask": "adapters_multi_task",
}
"""The authors' name of a method → ours."""
TOLERANCE = 1e-5
CHANGED = 1e-4
"""A difference that is larger than any rounding error."""

CROSS_ATTENTION_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
EMBEDDINGS = "task_embedding_controller.task_to_embeddings."
PROJECTOR = "task_embedding_controller.task_hyper_net.task_embeding_generator."
STACK = {
    "task_hypernet.task_embeding_generator": "projector",
    "LayerNorm": "norm",
    "layer_id_embeddings": "layer_embedding",
    "adapters_block_type": "position_embedding",
    "down_sampler_hyper_net.weight_generator.0": "generators.down",
    "down_sampler_hyper_net.bias_generator.0": "generators.down_bias",
    "up_sampler_hyper_net.weight_generator.0": "generators.up",
    "up_sampler_hyper_net.bias_generator.0": "generators.up_bias",
    "post_layernorm_hypernet.weight_generator": "generators.norm.gain",
    "post_layernorm_hypernet.bias_generator": "generators.norm.shift",
}
"""The authors' names in a stack's hypernetwork → ours."""
SITE = {
    "meta_down_sampler.weight_generator.0": "down",
    "meta_down_sampler.bias_generator.0": "down_bias",
    "meta_up_sampler.weight_generator.0": "up",
    "meta_up_sampler.bias_generator.0": "up_bias",
    "post_layernorm_hypernet.weight_generator": "norm.gain",
    "post_layernorm_hypernet.bias_generator": "norm.shift",
}
"""The authors' names in a site's hypernetworks → ours."""
ADAPTER = {
    "down": "adapters.{task}.down_sampler.weight",
    "down_bias": "adapters.{task}.down_sampler.bias",
    "up": "adapters.{task}.up_sampler.weight",
    "up_bias": "adapters.{task}.up_sampler.bias",
}
"""Our tensors over tasks and sites ← the authors' for each."""
Reference = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module", params=list(METHODS))
def reference(request: pytest.FixtureRequest) -> Reference:
    """Read a method's configuration and tensors of the reference; a missing file is a failure, never a skip."""
    description, tensors = FOLDER / f"{request.param}.json", FOLDER / f"{request.param}.safetensors"
    assert description.is_file(), f"{FOLDER} holds no {description.name}"
    assert tensors.is_file(), f"{FOLDER} holds no {tensors.name}"
    return json.loads(description.read_text()), load_file(tensors)


@pytest.fixture
def make_reference_model(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], MultiTaskModel]:
    """Make our model with the authors' weights."""
    configuration, tensors = reference
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "good": 3, "bad": 4}, unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special_tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_tokens).save_pretrained(tmp_path)
    config = T5Config(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **configuration["t5"])
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    task = {
        "text": "{sentence}",
        "kind": "classification",
        "label_column": "label",
        "labels": {0: "good", 1: "bad"},
        "metrics": ["accuracy"],
    }
    name = METHODS[configuration["method"]]
    projector = {
        "hidden_dim": configuration["task_hidden_dim"],
        "output_dim": configuration["projected_task_embedding_dim"],
    }
    sizes = {"task_embedding_dim": configuration["task_embedding_dim"], "projector": projector}
    method = {
        "reduction_factor": configuration["reduction_factor"],
        "activation": configuration["non_linearity"],
        **(sizes if name.startswith("hyperformer") else {}),
    }

    def make() -> MultiTaskModel:
        model = MultiTaskModel(
            BackboneSettings(path=str(tmp_path), max_source_tokens=16, max_target_tokens=16),
            Methods.model_validate({name: method}).get_method(name),
            Tasks({name: task for name in configuration["tasks"]}),
        )
        load_authors_weights(model, configuration["tasks"], tensors)
        attention = model.backbone.t5.decoder.block[0].layer[1].EncDecAttention
        if attention.has_relative_attention_bias:
            monkeypatch.setattr(t5_layers, "attend_to_source", attend_with_bias(attention))
        return model.eval()

    return make


def load_authors_weights(model: MultiTaskModel, tasks: list[str], tensors: dict[str, Tensor]) -> None:
    """Load every tensor `model.*`; none may be left over, and all tensors of our model must be set."""
    theirs = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    bias = theirs.get(CROSS_ATTENTION_BIAS)
    if bias is not None:
        add_cross_attention_bias(model.backbone.t5, bias)
    name = model.method_settings.name
    if name == "adapters_multi_task":
        ours = take_adapters(theirs, tasks, authors_sites(model))
    else:
        ours = {"task_embedding.weight": torch.stack([theirs.pop(f"{EMBEDDINGS}{task}") for task in tasks])}
        ours |= take_stacks(theirs) if name == "hyperformer_plus_plus" else take_sites(theirs, authors_sites(model))
    model.method.load_state_dict(ours, strict=True)
    model.backbone.t5.load_state_dict(theirs, strict=True)


def authors_sites(model: MultiTaskModel) -> list[str]:
    """Return the authors' name of each site: position 1 is self-attention, a block's first layer, 0 the last layer."""
    last = {"encoder": 1, "decoder": 2}
    return [
        f"{site.stack}.block.{site.layer}.layer.{0 if site.position else last[site.stack]}.adapter_controller."
        for site in model.backbone.sites()
    ]


def take_stacks(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove HyperFormer++'s tensors from `theirs`, and return them by our names."""
    ours = {}
    for name in list(theirs):
        stack, _, rest = name.partition(".adapter_layers_hyper_net.")
        if rest:
            prefix = next(prefix for prefix in STACK if rest.startswith(f"{prefix}."))
            ours[f"stacks.{stack}.{STACK[prefix]}{rest.removeprefix(prefix)}"] = theirs.pop(name)
    return ours


def take_sites(theirs: dict[str, Tensor], sites: list[str]) -> dict[str, Tensor]:
    """Remove HyperFormer's tensors from `theirs`, and return them by our names, concatenated over sites."""
    ours = {
        f"projector.{name.removeprefix(PROJECTOR)}": theirs.pop(name)
        for name in list(theirs)
        if name.startswith(PROJECTOR)
    }
    for their_name, our_name in SITE.items():
        for kind in ("weight", "bias"):
            tensors = [theirs.pop(f"{site}{their_name}.{kind}") for site in sites]
            ours[f"generators.{our_name}.{kind}"] = torch.cat(tensors)
    return ours


def take_adapters(theirs: dict[str, Tensor], tasks: list[str], sites: list[str]) -> dict[str, Tensor]:
    """Remove the tensors of Adapters† from `theirs`, and return them by our names."""
    ours = {
        our_name: torch.stack(
            [torch.stack([theirs.pop(site + their_name.format(task=task)) for site in sites]) for task in tasks]
        )
        for our_name, their_name in ADAPTER.items()
    }
    for our_name, their_name in (("gain", "weight"), ("shift", "bias")):
        ours[our_name] = torch.stack([theirs.pop(f"{site}post_layer_norm.{their_name}") for site in sites])
    return ours


def add_cross_attention_bias(model: T5ForConditionalGeneration, bias: Tensor) -> None:
    """Add the bidirectional cross-attention position bias of transformers 3, which later versions dropped, to a T5.

    The reference was computed with it. It belongs to the backbone's decoder, not to the method.
    """
    attention = model.decoder.block[0].layer[1].EncDecAttention
    attention.relative_attention_bias = torch.nn.Embedding(*bias.shape)
    attention.has_relative_attention_bias = True
    attention.is_decoder = False  # only makes the buckets bidirectional


def attend_with_bias(biased: Any) -> Callable[..., Tensor]:
    """Return `attend_to_source`, with the position bias of the attention `biased`, which all blocks share."""
    attend = t5_layers.attend_to_source

    def attend_to_source(linear: Any, attention: Any, hidden: Tensor, packing: Packing, source: Any) -> Tensor:
        source = copy.copy(source)
        source.groups = source.packing.pad(source.states)
        source.biases = [
            (0.0 if mask is None else mask)
            + biased.compute_bias(targets.length, states.length)[0].transpose(0, 1).flatten(0, 1)  # [T · H, L]
            for mask, targets, states in zip(source.biases, packing.groups, source.packing.groups, strict=True)
        ]
        return attend(linear, attention, hidden, packing, source)

    return attend_to_source


@torch.no_grad()
def compute_outputs(model: MultiTaskModel, task: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the outputs of our model that the reference has too."""
    batch = {name: tensors[name] for name in ("input_ids", "attention_mask", "labels")}
    task_ids = torch.full((len(batch["labels"]),), model.task_id(task))
    with model.backbone.active_weights.use(model.method.weights(task_ids[:1])):
        out = model.backbone.t5(**batch)
    outputs = model(task_ids, **batch)
    return {
        "logits": out.logits,
        "encoder_last_hidden_state": out.encoder_last_hidden_state,
        "loss": outputs["loss"].reshape(1),
        "row_losses": outputs["row_losses"],
    }


def reference_row_losses(tensors: dict[str, Tensor], task: str) -> Tensor:
    """Compute each row's mean cross-entropy from the reference's logits."""
    logits, labels = tensors[f"logits.{task}"], tensors["labels"]
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # 0 where a label is ignored
    return losses.sum(1) / (labels != IGNORED).sum(1)


def largest_difference(model: MultiTaskModel, task: str, tensors: dict[str, Tensor], kind: str) -> float:
    return float((compute_outputs(model, task, tensors)[kind] - tensors[f"{kind}.{task}"]).abs().max())


def test_the_authors_weights_give_the_authors_outputs_for_every_task(make_reference_model, reference):
    configuration, tensors = reference
    model = make_reference_model()
    assert len(configuration["tasks"]) >= 2
    for task in configuration["tasks"]:
        for kind in ("logits", "encoder_last_hidden_state", "loss"):
            assert largest_difference(model, task, tensors, kind) < TOLERANCE, (kind, task)
        row_losses = compute_outputs(model, task, tensors)["row_losses"]
        torch.testing.assert_close(row_losses, reference_row_losses(tensors, task), rtol=0, atol=TOLERANCE)


def test_the_tasks_of_the_reference_differ_from_one_another(reference):
    configuration, tensors = reference
    first, *others = (tensors[f"logits.{task}"] for task in configuration["tasks"])
    for other in others:
        assert float((first - other).abs().max()) > CHANGED


def test_a_baked_task_gives_the_authors_logits(make_reference_model, reference):
    configuration, tensors = reference
    model = make_reference_model()
    task = configuration["tasks"][1]
    with torch.no_grad():
        out = model.bake(task).t5(**{name: tensors[name] for name in ("input_ids", "attention_mask", "labels")})
    torch.testing.assert_close(out.logits, tensors[f"logits.{task}"], rtol=0, atol=TOLERANCE)


def test_another_activation_is_noticed(make_reference_model, reference):
    configuration, tensors = reference
    model = make_reference_model()
    model.backbone.active_weights.activation = torch.nn.ReLU()
    assert largest_difference(model, configuration["tasks"][0], tensors, "logits") > CHANGED


def test_positions_the_other_way_round_are_noticed(make_reference_model, reference, monkeypatch):
    configuration, tensors = reference
    model = make_reference_model()
    weights, sites = model.method.weights, model.backbone.sites()
    other = [sites.index(replace(site, position=1 - site.position)) for site in sites]

    def swap_positions(task_ids):
        return AdapterWeights(**{name: tensor[:, other] for name, tensor in vars(weights(task_ids)).items()})

    monkeypatch.setattr(model.method, "weights", swap_positions)
    assert largest_difference(model, configuration["tasks"][0], tensors, "logits") > CHANGED


def test_the_norm_after_the_residual_is_noticed(make_reference_model, reference, monkeypatch):
    def norm_last(x, down, down_bias, up, up_bias, gain, shift, activation):
        z = F.linear(activation(F.linear(x, down, down_bias)), up, up_bias)
        return F.layer_norm(x + z, x.shape[-1:], gain, shift, adapters.ADAPTER_NORM_EPS)

    configuration, tensors = reference
    model = make_reference_model()
    monkeypatch.setattr(adapters, "adapter", norm_last)
    assert largest_difference(model, configuration["tasks"][0], tensors, "logits") > CHANGED
