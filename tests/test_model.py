"""A backbone, a method and tasks as one model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import run_python

from hyperformer import model as models
from hyperformer.methods import METHODS
from hyperformer.model import CONFIGURATION, WEIGHTS
from hyperformer.types import Example, HyperFormerError

ROWS = [
    ("mood", "sentence: the film is dull", "negative"),
    ("likeness", "a: the book is good b: a song was wonderful today", "2"),
    ("mood3", "which mood: the story is lovely although nobody in the village had expected it", "quite bad"),
    ("mood", "sentence: the garden is charming on the whole", "positive"),
    ("likeness", "a: dull b: dull", "3"),
]
SENTENCES = [
    {"sentence": "the film is dull"},
    {"sentence": "the garden is lovely although nobody in the village had really expected it at all"},
    {"sentence": "bright"},
    {"sentence": "the book is terrible today"},
    {"sentence": "the song is wicked"},
]


every_method = pytest.mark.parametrize("method", list(METHODS))


def batch_of(model, rows):
    encoded = model.backbone.encode([Example(*row) for row in rows], 32)
    return model.backbone.collate(encoded, [model.task_id(task) for task, _, _ in rows])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@torch.no_grad()
def test_a_row_of_a_mixed_batch_has_the_loss_of_its_own_single_task_batch(make_model, label_smoothing):
    model = make_model(loud=True, label_smoothing=label_smoothing)
    mixed = batch_of(model, ROWS)
    losses = model.row_losses(mixed.task_ids, mixed.tensors)
    for row, loss in zip(ROWS, losses, strict=True):
        alone = batch_of(model, [row])
        torch.testing.assert_close(loss, model(alone.task_ids, **alone.tensors)["loss"], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_task_of_a_row_decides_its_adapters(make_model):
    model = make_model(loud=True)
    tensors = batch_of(model, ROWS[:1] * 3).tensors
    losses = model.row_losses(torch.tensor([0, 1, 2]), tensors).tolist()
    assert min(abs(losses[0] - losses[1]), abs(losses[1] - losses[2]), abs(losses[0] - losses[2])) > 1e-2


@torch.no_grad()
def test_the_loss_of_a_batch_is_the_mean_over_its_rows(make_model):
    model = make_model(loud=True)
    batch = batch_of(model, ROWS)
    rows = model.row_losses(batch.task_ids, batch.tensors)
    assert float(model(batch.task_ids, **batch.tensors)["loss"]) == pytest.approx(sum(rows.tolist()) / len(rows))


@every_method
def test_training_changes_exactly_the_method_and_the_layer_norms_or_all_that_is_fine_tuned(make_model, method):
    model = make_model(method=method)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    model.train()
    torch.manual_seed(0)
    batch = batch_of(model, ROWS)
    for _ in range(3):
        optimiser.zero_grad()
        model(batch.task_ids, **batch.tensors)["loss"].backward()
        optimiser.step()
    after = model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    expected = {name for name in before if name.startswith("method.") or name.endswith("layer_norm.weight")}
    assert changed == (set(before) if method == "fine-tuning" else expected)


@every_method
def test_a_mixed_batch_gives_the_gradients_of_its_rows_one_by_one(make_model, method):
    model = make_model(loud=True, method=method)

    def gradients(losses):
        model.zero_grad()
        losses.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    batch = batch_of(model, ROWS)
    mixed = gradients(model(batch.task_ids, **batch.tensors)["loss"])
    singles = []
    for row in ROWS:
        alone = batch_of(model, [row])
        singles.append(model(alone.task_ids, **alone.tensors)["loss"])
    for name, wanted in gradients(torch.stack(singles).mean()).items():
        torch.testing.assert_close(mixed[name], wanted, rtol=1e-3, atol=1e-5, msg=name)


def test_a_checkpoint_holds_trained_tensors_and_configuration_only(make_model, tmp_path):
    model = make_model()
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, CONFIGURATION}
    tensors = load_file(tmp_path / WEIGHTS)
    assert set(tensors) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("shared" in name or "Attention" in name or "DenseReluDense" in name for name in tensors)


@every_method
def test_a_checkpoint_of_any_method_restores_the_model(make_model, tmp_path, method):
    model = make_model(loud=True, method=method)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    model.save(tmp_path)
    loaded = models.load(tmp_path)
    assert loaded.method_settings == model.method_settings
    for task in model.tasks:
        assert loaded.scores(task, [ROWS[0][1]], 1) == model.scores(task, [ROWS[0][1]], 1)


ANSWERS = """
import json, pathlib, sys
import torch
torch.set_num_threads(1)
from hyperformer import model
loaded = model.load(pathlib.Path(sys.argv[1]))
print(json.dumps([[s.values for s in loaded.scores(task, json.loads(sys.argv[2]), 2)] for task in loaded.tasks]))
"""


def test_a_saved_model_scores_the_same_in_a_new_process(make_model, tmp_path):
    model = make_model(loud=True)
    model.save(tmp_path)
    sources = [source for _, source, _ in ROWS]
    wanted = [[list(s.values) for s in model.scores(task, sources, 2)] for task in model.tasks]
    found = run_python(ANSWERS, tmp_path, json.dumps(sources))
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == wanted


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, checkpoint):
    with pytest.raises(HyperFormerError, match=f"is no checkpoint .*{CONFIGURATION}"):
        models.load(tmp_path)
    shutil.copy(checkpoint / CONFIGURATION, tmp_path)
    with pytest.raises(HyperFormerError, match=f"is no checkpoint .*{WEIGHTS}"):
        models.load(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "added", "shape"])
def test_tensors_that_do_not_fit_are_refused_by_name(checkpoint, tmp_path, fault):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    tensors = load_file(checkpoint / WEIGHTS)
    name = "method.stacks.encoder.generators.gain.bias"
    if fault == "missing":
        del tensors[name]
    elif fault == "added":
        name = "backbone.t5.shared.weight"
        tensors[name] = torch.zeros(2)
    else:
        tensors[name] = torch.zeros(3)
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(HyperFormerError, match=f"do not fit the model: 1 .*'{name}'"):
        models.load(tmp_path)


def test_an_unknown_task_is_refused_with_the_known_ones(make_model):
    with pytest.raises(HyperFormerError, match="unknown task 'moods'; the model knows mood, mood3, likeness"):
        make_model().predict("moods", SENTENCES)


def test_batching_by_length_keeps_the_rows_order(make_model):
    model = make_model(loud=True)
    together = model.predict("mood3", SENTENCES, batch_size=2)
    for row, answer in zip(SENTENCES, together, strict=True):
        (alone,) = model.predict("mood3", [row], batch_size=1)
        assert answer.label == alone.label
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert len({round(answer.probabilities["good"], 4) for answer in together}) == len(SENTENCES)
    assert model.predict("mood3", []) == []


def test_a_classification_answer_is_the_likeliest_label_and_a_regression_answer_the_expected_number(make_model):
    model = make_model(loud=True)
    (mood,) = model.predict("mood3", SENTENCES[:1])
    assert set(mood.probabilities) == {"quite bad", "good", "neither"}
    assert sum(mood.probabilities.values()) == pytest.approx(1.0)
    assert mood.label == max(mood.probabilities, key=mood.probabilities.__getitem__)
    assert mood.value is None
    (likeness,) = model.predict("likeness", [{"a": "dull", "b": "dull"}])
    assert likeness.value == pytest.approx(sum(float(text) * share for text, share in likeness.probabilities.items()))


@torch.no_grad()
@every_method
def test_a_baked_task_scores_as_the_model_does(make_model, method):
    model = make_model(loud=True, method=method)
    for task in model.tasks:
        baked = model.bake(task)
        rows = baked.encode([Example(task, source, "") for _, source, _ in ROWS], 32)
        batch = baked.collate(rows, [0] * len(rows)).tensors
        found = baked.scores(batch["input_ids"], batch["attention_mask"], model.answers[task])
        wanted = torch.tensor([s.values for s in model.scores(task, [source for _, source, _ in ROWS], 8)])
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-5)


def test_scoring_leaves_no_dropout_on(make_model):
    model = make_model(loud=True)
    model.train()
    first, second = (model.scores("mood", [ROWS[0][1]], 1)[0].values for _ in range(2))
    assert first == second
