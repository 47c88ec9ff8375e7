"""T5 as a backbone, against transformers' own forward pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GPT2Config, T5ForConditionalGeneration

from hyperformer import backbones
from hyperformer.backbones import t5_tokenizers
from hyperformer.backbones.adapters import AdapterSite
from hyperformer.backbones.t5 import IGNORED
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import AdapterWeights, Example, Site
from hyperformer.settings import BackboneSettings

SOURCES = ["the film is dull", "the garden is lovely although nobody in the village had really expected it", "book"]
ANSWERS = ["negative", "good", "the song is wicked"]


def examples(answers: list[str] = ANSWERS) -> list[Example]:
    return [Example("mood", source, answer) for source, answer in zip(SOURCES, answers, strict=True)]


def random_weights(tasks: int = 1, sites: int = 8, width: int = 16, bottleneck: int = 4) -> AdapterWeights:
    draw = torch.Generator().manual_seed(3)
    shapes = {
        "down": (bottleneck, width),
        "down_bias": (bottleneck,),
        "up": (width, bottleneck),
        "up_bias": (width,),
        "gain": (width,),
        "shift": (width,),
    }
    return AdapterWeights(
        **{name: 0.5 * torch.randn(tasks, sites, *shape, generator=draw) for name, shape in shapes.items()}
    )


@pytest.fixture
def plain(backbone_folder: Path) -> T5ForConditionalGeneration:
    """Return the same weights as loaded by transformers, without adapters."""
    return T5ForConditionalGeneration.from_pretrained(backbone_folder, dtype=torch.float32).eval()


SETTINGS = BackboneSettings(path="", max_source_tokens=32, max_target_tokens=32)


def settings(path: object) -> BackboneSettings:
    return BackboneSettings(path=str(path), max_source_tokens=32, max_target_tokens=32)


def test_encoding_truncates_source_and_target_and_ends_both(backbone):
    long = Example("mood", "the film is dull and the book is lovely", "the song is very wicked today on the whole")
    short = SETTINGS.model_copy(update={"max_source_tokens": 6, "max_target_tokens": 4})
    (row,) = backbone.encode_examples([long], short)
    assert (len(row["input_ids"]), len(row["labels"])) == (6, 4)
    assert row["input_ids"][-1] == row["labels"][-1] == backbone.tokenizer.eos_token_id
    assert backbone.encode([], short) == []


def test_collating_pads_to_the_longest_and_marks_what_is_padding(backbone):
    rows = [{"input_ids": [7, 8, 1], "labels": [5, 1]}, {"input_ids": [9, 1], "labels": [4, 6, 3, 1]}]
    batch = backbone.collate(rows)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[7, 8, 1], [9, 1, 0]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[5, 1, IGNORED, IGNORED], [4, 6, 3, 1]],
    }


def test_a_real_pad_token_in_a_source_is_not_masked(backbone):
    batch = backbone.collate([{"input_ids": [7, 0, 8, 1], "labels": [1]}])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1]]


def test_sites_are_feed_forward_then_self_attention_of_every_block(backbone):
    assert backbone.sites() == [
        Site(stack, layer, position) for stack in ("encoder", "decoder") for layer in (0, 1) for position in (0, 1)
    ]


@torch.no_grad()
def test_the_loss_of_a_row_in_a_padded_batch_is_transformers_loss_of_that_row_alone(backbone, plain):
    rows = backbone.encode_examples(examples(), SETTINGS)
    losses = backbone.loss(backbone.collate(rows), 0.0)
    for row, loss in zip(rows, losses, strict=True):
        alone = plain(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
        torch.testing.assert_close(loss, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_label_smoothing_is_torchs(backbone, plain):
    rows = backbone.encode_examples(examples(), SETTINGS)
    losses = backbone.loss(backbone.collate(rows), 0.2)
    for row, loss in zip(rows, losses, strict=True):
        labels = torch.tensor([row["labels"]])
        logits = plain(input_ids=torch.tensor([row["input_ids"]]), labels=labels).logits
        wanted = nn.CrossEntropyLoss(label_smoothing=0.2)(logits[0], labels[0])
        torch.testing.assert_close(loss, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_scores_are_the_summed_log_probabilities_of_each_answer_forced_alone(backbone, plain):
    rows = backbone.encode_examples([Example("mood", source, "") for source in SOURCES], SETTINGS)
    batch = backbone.collate(rows)
    assert not batch["attention_mask"].all()
    scores = backbone.scores(
        batch["input_ids"], batch["attention_mask"], backbone.encode_answers(ANSWERS), "likelihood"
    )
    assert scores.shape == (3, 3)
    for i, row in enumerate(rows):
        for j, answer in enumerate(ANSWERS):
            labels = torch.tensor([backbone.tokenizer(answer)["input_ids"]])
            logits = plain(input_ids=torch.tensor([row["input_ids"]]), labels=labels).logits
            forced = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).sum()
            assert float(scores[i, j]) == pytest.approx(float(forced), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "answers", [["good", "bad"], ["the song is wicked", "the song is good", "a film"], ["1", "1 2", "1 3"]]
)
def test_constrained_scores_are_normalised_over_the_possible_next_tokens(backbone, plain, answers):
    """Compare with each answer forced alone, with every token normalised over the tokens that an answer has there."""
    ids = [backbone.tokenizer(answer)["input_ids"] for answer in answers]
    rows = backbone.encode_examples([Example("mood", source, "") for source in SOURCES], SETTINGS)
    batch = backbone.collate(rows)
    inputs = batch["input_ids"], batch["attention_mask"]
    scores = backbone.scores(*inputs, backbone.encode_answers(answers), "constrained")
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    for i, row in enumerate(rows):
        for j, answer in enumerate(ids):
            logits = plain(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([answer])).logits[0]
            wanted = 0.0
            for index, token in enumerate(answer):
                choices = sorted({other[index] for other in ids if other[:index] == answer[:index]})
                wanted += float(logits[index, choices].log_softmax(-1)[choices.index(token)])
            assert float(scores[i, j]) == pytest.approx(wanted, abs=1e-5)
    graph = backbone.bake(random_weights()).build_export_module(
        backbone.encode_answers(answers, [float(i) for i in range(len(answers))]), "constrained"
    )
    scores, probabilities, value = graph(*inputs)
    torch.testing.assert_close(value, probabilities @ torch.arange(len(answers)).float())


def test_answers_that_encode_to_the_same_tokens_are_refused(backbone):
    with pytest.raises(HyperFormerError, match=r"'good' and 'Good ' encode to the same tokens"):
        backbone.encode_answers(["good", "dull", "Good "])


def test_an_answer_outside_the_vocabulary_is_refused(backbone):
    with pytest.raises(HyperFormerError, match="'gut 好' has tokens that are not in the backbone's vocabulary"):
        backbone.encode_answers(["good", "gut 好"])


@torch.no_grad()
def test_baked_adapters_score_as_active_ones_do(backbone):
    weights = random_weights()
    rows = backbone.encode_examples([Example("mood", source, "") for source in SOURCES], SETTINGS)
    batch = backbone.collate(rows)
    inputs = batch["input_ids"], batch["attention_mask"], backbone.encode_answers(ANSWERS), "likelihood"
    bare = backbone.scores(*inputs)
    with backbone.active_weights.use(weights):
        adapted = backbone.scores(*inputs)
    baked = backbone.bake(weights)
    torch.testing.assert_close(baked.scores(*inputs), adapted, rtol=1e-6, atol=1e-6)
    assert float((adapted - bare).abs().amax(1).min()) > 1e-2
    torch.testing.assert_close(backbone.scores(*inputs), bare, rtol=0, atol=0)  # baking does not change the original
    scores, probabilities = baked.build_export_module(inputs[2], inputs[3])(*inputs[:2])
    torch.testing.assert_close(scores, adapted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(probabilities, adapted.softmax(-1))


def test_adapters_are_after_self_attention_and_feed_forward_of_every_block_and_nowhere_else(backbone):
    indices = {name: module.index for name, module in backbone.t5.named_modules() if isinstance(module, AdapterSite)}
    sublayers = {("encoder", 0): 1, ("encoder", 1): 0, ("decoder", 0): 2, ("decoder", 1): 0}
    assert indices == {
        f"{site.stack}.block.{site.layer}.layer.{sublayers[site.stack, site.position]}.dropout": index
        for index, site in enumerate(backbone.sites())
    }


@torch.no_grad()
def test_an_adapter_adds_to_the_sublayers_output_inside_the_residual(backbone):
    sublayer = backbone.t5.encoder.block[1].layer[-1]
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    weights = random_weights()
    for tensor in vars(weights).values():
        tensor.zero_()
    weights.shift[0, backbone.sites().index(Site("encoder", 1, 0))] = 1.0
    before = sublayer(hidden)
    with backbone.active_weights.use(weights):
        torch.testing.assert_close(sublayer(hidden), before + 1.0)


def test_adapters_are_deactivated_again_even_after_an_error(backbone):
    x = torch.ones(1, 2, 16)
    with backbone.active_weights.use(random_weights()):
        assert not torch.equal(backbone.active_weights.adapt(0, x), x)
        with pytest.raises(IndexError), backbone.active_weights.use(random_weights(tasks=2)):
            backbone.active_weights.adapt(99, x)
        assert not torch.equal(backbone.active_weights.adapt(0, x), x)
    assert torch.equal(backbone.active_weights.adapt(0, x), x)


def test_freezing_leaves_exactly_the_layer_norms_to_train(backbone):
    backbone.freeze()
    norms = {
        id(parameter)
        for module in backbone.modules()
        if type(module).__name__ == "T5LayerNorm"
        for parameter in module.parameters()
    }
    assert len(norms) == 2 * 2 + 1 + 2 * 3 + 1
    assert {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad} == norms


def test_saving_rounds_to_half_precision_and_loading_gives_the_same(backbone, tmp_path):
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1e-5 * torch.randn_like(parameter))
    wanted: dict[str, Tensor] = {name: tensor.half().float() for name, tensor in backbone.t5.state_dict().items()}
    text = "the garden is lovely, 12 times!"
    ids = backbone.tokenizer(text)["input_ids"]
    backbone.save(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}  # noqa: SIM118
    again = backbones.load(settings(tmp_path))
    loaded = again.t5.state_dict()
    assert loaded.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor), name
    assert again.tokenizer(text)["input_ids"] == ids


def test_equal_texts_give_the_same_tokenizer(texts):
    first, second = (t5_tokenizers.train_tokenizer(texts, 240) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert first.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    sentinels = first.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(t5_tokenizers.SENTINELS)])
    assert sorted(sentinels) == list(range(len(first) - t5_tokenizers.SENTINELS, len(first)))


def test_the_tokenizer_decodes_to_lower_case_text(texts):
    tokenizer = t5_tokenizers.train_tokenizer(texts, 240)
    ids = tokenizer("  The Film\tis  DULL, today.")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the film is dull, today."


def check_one_line(error: pytest.ExceptionInfo[HyperFormerError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HyperFormerError) as error:
        backbones.load(settings(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in check_one_line(error)
    assert "backbone.path" in check_one_line(error)


def test_another_family_is_refused(tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(HyperFormerError, match="'gpt2' model; expected one of t5") as error:
        backbones.load(settings(tmp_path))
    check_one_line(error)


def test_a_folder_without_weights_is_refused(backbone_folder, tmp_path):
    shutil.copytree(backbone_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(HyperFormerError, match="cannot load a backbone") as error:
        backbones.load(settings(tmp_path))
    assert "model.safetensors" in check_one_line(error)


def test_pickled_weights_are_not_opened(backbone_folder, tmp_path):
    shutil.copytree(backbone_folder, tmp_path, dirs_exist_ok=True)
    weights = T5ForConditionalGeneration.from_pretrained(backbone_folder).state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(HyperFormerError, match="cannot load a backbone") as error:
        backbones.load(settings(tmp_path))
    check_one_line(error)
