"""Training, scoring and baking of every kind of encoder, loaded from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from encoders import (
    FAMILY,
    ROWS,
    SOURCE,
    build_model,
    encoder_settings,
    make_batch,
    make_tasks,
    save_backbone,
    select_rows,
    train_model,
)
from safetensors.torch import load_file
from tokenizers import processors
from toys import method_settings
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertModel,
    PreTrainedTokenizerFast,
)

from hyperformer import backbones
from hyperformer.backbones.adapters import AdapterSite
from hyperformer.backbones.encoder_graph import compute_token_types
from hyperformer.backbones.heads import AnswerHeads
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Example, HeadWeights
from hyperformer.methods import METHODS, group_tasks
from hyperformer.model.counts import count_parameters
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.model.tensors import trained_tensors
from hyperformer.settings import EvaluationSettings, Tasks


@pytest.fixture(scope="module", params=list(FAMILY))
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    return save_backbone(tmp_path_factory.mktemp("member"), request.param, texts)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    return save_backbone(tmp_path_factory.mktemp("bert"), "bert", texts)


@pytest.mark.parametrize("method", list(METHODS))
def test_three_steps_change_layer_norms_and_the_method_and_nothing_else(bert, method):
    before, after = build_model(bert, method).state_dict(), train_model(build_model(bert, method)).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    norms = {name for name in before if "LayerNorm" in name or name.startswith("method.")}
    if method.startswith("fine_tuning"):
        assert changed > norms
    else:
        assert changed == norms


@pytest.mark.parametrize("task", ["mood", "mood3", "likeness"])
def test_a_baked_graph_scores_as_transformers_own_forward_does(member, task):
    """Expected scores: transformers' classes and token types with our adapters, and a head computed here."""
    model = train_model(build_model(member))
    sources = [model.source(task, row) for row in select_rows(task)]
    wanted = [scores.values for scores in model.scores(task, sources, 3)]
    inputs = model.backbone.tokenizer(sources, padding=True, return_tensors="pt")
    task_id = torch.tensor([model.task_id(task)])
    head = model.method.head(task_id)
    with torch.no_grad(), model.backbone.active_weights.use(model.method.weights(task_id)):
        hidden = model.backbone.encoder(**inputs).last_hidden_state
    means = torch.stack([row[mask.bool()].mean(0) for row, mask in zip(hidden, inputs["attention_mask"], strict=True)])
    logits = means @ head.weight[0].detach().T + head.bias[0].detach()
    if task == "likeness":
        grid = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
        logits = -((logits[:, :1] - grid) ** 2) / (2 * 0.5**2)
    log_probabilities = logits[:, : len(wanted[0])].log_softmax(-1)
    torch.testing.assert_close(torch.tensor(wanted), log_probabilities, atol=1e-4, rtol=1e-4)

    baked = model.bake(task)
    answers = baked.encode_answers(model.tasks[task].answers, model.tasks[task].numbers)
    graph = baked.build_export_module(answers, "constrained").eval()
    scores, probabilities, *value = graph(inputs["input_ids"], inputs["attention_mask"])
    torch.testing.assert_close(scores, log_probabilities, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probabilities, log_probabilities.exp(), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        again = baked.scores(inputs["input_ids"], inputs["attention_mask"], answers, "constrained")
    torch.testing.assert_close(again, scores)
    if task == "likeness":
        values = [answer.value for answer in model.answer(task, select_rows(task))]
        torch.testing.assert_close(value[0], torch.tensor(values), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_mixed_batch_costs_what_its_tasks_cost_alone(bert, method):
    model = build_model(bert, method).eval()
    group = [row for row in ROWS if row[0] in model.group]
    batch = make_batch(model, group)
    losses = model.row_losses(batch.task_ids, batch.tensors)
    for index, row in enumerate(group):
        single = make_batch(model, [row])
        torch.testing.assert_close(
            losses[index], model.row_losses(single.task_ids, single.tensors)[0], atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("head", ["generated", "trained"])
def test_a_head_is_generated_from_the_task_embedding_or_trained(bert, head):
    model = build_model(bert, head=head)
    names = {name for name in trained_tensors(model) if "head" in name}
    if head == "generated":
        assert names == {
            f"method.generated_heads.{kind}.{tensor}" for kind in ("weight", "bias") for tensor in ("weight", "bias")
        }
    else:
        assert names == {"method.heads.weight", "method.heads.bias"}
        assert model.method.heads.weight.shape == (3, 3, 16)
    before = model.method.head(torch.tensor([0, 1]))
    with torch.no_grad():
        model.method.task_embedding.weight[0] += 1.0
    after = model.method.head(torch.tensor([0, 1]))
    assert torch.equal(before.weight[0], after.weight[0]) == (head == "trained")
    assert torch.equal(before.weight[1], after.weight[1])


def test_a_model_for_each_task_has_heads_of_one_shape_and_they_are_swapped(bert, tmp_path):
    groups = []
    for number, name in enumerate(make_tasks().root):
        torch.manual_seed(number)
        settings = encoder_settings(bert), method_settings("adapters_per_task"), make_tasks()
        model = MultiTaskModel(*settings, group=[name])
        wanted = model.answer(name, select_rows(name))
        groups.append((name, wanted, {key: tensor.clone() for key, tensor in trained_tensors(model).items()}))
    names, trained = [[name] for name, _, _ in groups], [tensors for _, _, tensors in groups]
    assembled = TaskModels.assemble(build_model(bert, "adapters_per_task"), names, trained)
    assembled.save_pretrained(tmp_path)
    for model in (assembled, TaskModels.from_pretrained(tmp_path)):
        for name, wanted, _ in reversed(groups):
            assert model.answer(name, select_rows(name)) == wanted


def test_two_texts_are_paired_as_the_tokenizer_pairs_them(member):
    model, plain = build_model(member), AutoTokenizer.from_pretrained(member)
    pairs = [("the film", "a lovely book"), ("a book", "the film is dull")]
    encoded = model.backbone.encode_examples([Example("likeness", pair, "") for pair in pairs], model.backbone_settings)
    expected = plain([a for a, _ in pairs], [b for _, b in pairs])
    assert [row["input_ids"] for row in encoded] == expected["input_ids"]
    if "token_type_ids" in expected:
        separator = plain.sep_token_id
        types = [compute_token_types(torch.tensor([row["input_ids"]]), separator)[0].tolist() for row in encoded]
        assert types == expected["token_type_ids"]


def test_adapters_are_before_the_dropout_of_both_layers_of_every_block(bert):
    model = build_model(bert)
    names = {name for name, module in model.backbone.encoder.named_modules() if isinstance(module, AdapterSite)}
    assert names == {
        f"encoder.layer.{layer}.{module}.dropout" for layer in (0, 1) for module in ("attention.output", "output")
    }


@torch.no_grad()
def test_without_adapters_the_hidden_states_are_the_plain_models(member):
    plain, ours = AutoModel.from_pretrained(member).eval(), backbones.load(encoder_settings(member)).eval()
    inputs = ours.tokenizer([("a book", SOURCE), ("the film", "dull")], padding=True, return_tensors="pt")
    hidden = plain(**inputs).last_hidden_state * inputs["attention_mask"].unsqueeze(2)
    wanted = hidden.sum(1) / inputs["attention_mask"].sum(1, keepdim=True)
    torch.testing.assert_close(ours.embed(inputs["input_ids"], inputs["attention_mask"]), wanted)


def test_a_regression_head_scores_by_the_distance_to_a_number():
    numbers = [0.0, 1.0, 4.0]
    heads = AnswerHeads([numbers, None], [3, 2])
    assert heads.rows == 2
    weights = HeadWeights(torch.randn(2, 2, 5), torch.randn(2, 2))
    head = heads(weights, torch.tensor([0, 1]))
    x = torch.randn(5)
    p = weights.weight[0, 0] @ x + weights.bias[0, 0]
    wanted = torch.tensor([-((p - u) ** 2) / (2 * 0.75**2) for u in (-1.0, -0.5, 1.0)])  # half of the widest gap
    torch.testing.assert_close((head.weight[0] @ x + head.bias[0]).log_softmax(0), wanted.log_softmax(0))
    plain = head.weight[1] @ x + head.bias[1]
    torch.testing.assert_close(plain[:2], weights.weight[1] @ x + weights.bias[1])
    assert plain[2] < -1e8


def test_label_smoothing_spreads_over_the_tasks_own_answers_only(bert):
    model = build_model(bert)
    model.label_smoothing = 0.3
    (row,) = [row for row in ROWS if row[0] == "mood"][:1]
    batch = make_batch(model.eval(), [row])
    (scores,) = model.scores("mood", [model.source(*row)], 1)
    label = model.tasks["mood"].read_label(row[1])
    wanted = -0.7 * scores.values[label] - 0.3 * sum(scores.values) / 2
    with torch.no_grad():
        assert float(model.row_losses(batch.task_ids, batch.tensors)[0]) == pytest.approx(wanted, abs=1e-5)


def test_what_is_counted_is_what_is_trained(bert):
    for method in METHODS:
        model = build_model(bert, method)
        counted = count_parameters(encoder_settings(bert), model.method_settings, make_tasks())
        size = sum(tensor.numel() for tensor in trained_tensors(model).values())
        assert counted["trained"] == size * len(group_tasks(model.method_settings, list(model.tasks)))
        assert counted["backbone"] == sum(p.numel() for p in model.backbone.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_target_tokens": 8}, "backbone.max_target_tokens is 8, but .* is an encoder"),
        ({"max_source_tokens": 65}, "backbone.max_source_tokens is 65; expected at most 64"),
        ({"max_source_tokens": 4}, "backbone.max_source_tokens is 4; expected at least 5"),
    ],
)
def test_settings_that_an_encoder_cannot_have_are_refused(bert, changes, message):
    with pytest.raises(HyperFormerError, match=message):
        backbones.load(encoder_settings(bert, **changes))


def test_roberta_has_fewer_positions_than_its_table(tmp_path, texts):
    folder = save_backbone(tmp_path, "roberta", texts)
    backbones.load(encoder_settings(folder, max_source_tokens=64))
    with pytest.raises(HyperFormerError, match="expected at most 64"):
        backbones.load(encoder_settings(folder, max_source_tokens=65))


def test_weights_that_lack_tensors_are_refused_and_not_initialised_at_random(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts)
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(configuration | {"num_hidden_layers": 3}))
    with pytest.raises(HyperFormerError, match=r"are missing 16 tensors .* the first is 'encoder\.layer\.2\.attention"):
        backbones.load(encoder_settings(folder))


def test_weights_without_a_pooler_suffice(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts)
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    assert not [name for name in load_file(folder / "model.safetensors") if "pooler" in name]
    backbones.load(encoder_settings(folder))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts)
    for file in [*folder.glob("*token*"), *folder.glob("vocab*")]:
        file.unlink()
    with pytest.raises(HyperFormerError, match=r"cannot load a backbone from .*tokenizer is missing"):
        backbones.load(encoder_settings(folder))


def test_a_tokenizer_of_more_tokens_than_the_model_knows_is_refused(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = len(tokenizer)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(HyperFormerError, match=f"has {known + 1} tokens; expected at most {known}"):
        backbones.load(encoder_settings(folder))


def test_a_tokenizer_with_other_token_types_is_refused(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = {"single": "[CLS] $A [SEP]", "pair": "[CLS]:1 $A:1 [SEP]:1 $B:0 [SEP]:0"}
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(**template, special_tokens=marks)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map
    ).save_pretrained(folder)
    with pytest.raises(HyperFormerError, match=r"gives two texts the token types \[1, 1, 1, 0, 0\]; expected 0 up to"):
        backbones.load(encoder_settings(folder))


def test_special_tokens_in_a_text_are_text(member):
    backbone = backbones.load(encoder_settings(member))
    marks = backbone.tokenizer.all_special_tokens
    rows = backbone.encode_examples(
        [Example("", f"a film {mark} a book", "") for mark in marks], encoder_settings(member)
    )
    numbers = {backbone.tokenizer.convert_tokens_to_ids(mark) for mark in marks} - {backbone.tokenizer.unk_token_id}
    for row in rows:
        ids = row["input_ids"]
        assert {ids[0], ids[-1]} <= numbers
        assert len(ids) > 6
        assert not numbers & set(ids[1:-1])


def test_a_text_is_truncated_at_its_end_whatever_the_tokenizer_says(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts)
    usual = backbones.load(encoder_settings(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(folder)
    example = Example("", (" ".join(texts[:9]), texts[3]), "")
    (ids,) = backbones.load(encoder_settings(folder)).encode_examples([example], encoder_settings(folder))
    assert [ids] == usual.encode_examples([example], encoder_settings(folder))
    assert len(ids["input_ids"]) == 32


def test_a_backbone_with_another_configuration_is_not_the_one_of_the_checkpoint(tmp_path, texts):
    folder = save_backbone(tmp_path / "bert", "bert", texts)
    build_model(folder).save_pretrained(tmp_path / "checkpoint")
    MultiTaskModel.from_pretrained(tmp_path / "checkpoint")
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(configuration | {"hidden_act": "relu"}))
    with pytest.raises(HyperFormerError, match=r"is not the one that .* was trained on"):
        MultiTaskModel.from_pretrained(tmp_path / "checkpoint")


def test_relative_positions_are_refused(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts, position_embedding_type="relative_key")
    with pytest.raises(HyperFormerError, match="'relative_key' position embeddings; expected 'absolute'"):
        backbones.load(encoder_settings(folder))


def test_an_encoder_generates_nothing_and_has_no_decoder(bert):
    echo = {"text": "{a}", "kind": "generation", "label_column": "b", "metrics": ["exact_match"]}
    with pytest.raises(HyperFormerError, match=r"task 'echo' is generative, but backbone .* is an encoder"):
        MultiTaskModel(encoder_settings(bert), method_settings("hyperformer"), Tasks({"echo": echo}))
    with pytest.raises(HyperFormerError, match=r"'generated', but backbone .* is an encoder"):
        build_model(bert).answer(
            "mood", select_rows("mood"), EvaluationSettings(batch_size=4, label_scoring="generated")
        )
    with pytest.raises(HyperFormerError, match="the method's stacks are 'decoder', but the backbone has no such stack"):
        build_model(bert, stacks="decoder")
