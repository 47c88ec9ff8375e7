"""The multi-task model: losses, answers, baking, checkpoints and parameter counts."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import PAPER, Batch, method_settings, task_settings
from transformers import T5Config

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.types import Example
from hyperformer.methods import METHODS, group_tasks
from hyperformer.model import saving
from hyperformer.model.checkpoint import CARD, CONFIGURATION, WEIGHTS
from hyperformer.model.counts import count_parameters
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.model.tensors import trained_tensors
from hyperformer.settings import BackboneSettings, EvaluationSettings, Tasks

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
multi_task_method = pytest.mark.parametrize("method", [name for name in METHODS if not name.endswith("per_task")])


def make_batch(model, rows):
    encoded = model.backbone.encode_examples([Example(*row) for row in rows], model.backbone_settings)
    task_ids = torch.tensor([model.task_id(task) for task, _, _ in rows])
    return Batch(task_ids, model.backbone.collate(encoded))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@torch.no_grad()
def test_a_row_of_a_mixed_batch_has_the_loss_of_its_own_single_task_batch(make_model, label_smoothing):
    model = make_model(loud=True, label_smoothing=label_smoothing)
    mixed = make_batch(model, ROWS)
    losses = model.row_losses(mixed.task_ids, mixed.tensors)
    for row, loss in zip(ROWS, losses, strict=True):
        single = make_batch(model, [row])
        torch.testing.assert_close(loss, model(single.task_ids, **single.tensors)["loss"], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_task_of_a_row_decides_its_adapters(make_model):
    model = make_model(loud=True)
    tensors = make_batch(model, ROWS[:1] * 3).tensors
    losses = model.row_losses(torch.tensor([0, 1, 2]), tensors).tolist()
    assert min(abs(losses[0] - losses[1]), abs(losses[1] - losses[2]), abs(losses[0] - losses[2])) > 1e-2


@torch.no_grad()
def test_the_loss_of_a_batch_is_the_mean_over_its_rows(make_model):
    model = make_model(loud=True)
    batch = make_batch(model, ROWS)
    rows = model.row_losses(batch.task_ids, batch.tensors)
    assert float(model(batch.task_ids, **batch.tensors)["loss"]) == pytest.approx(sum(rows.tolist()) / len(rows))


@every_method
def test_training_changes_exactly_the_method_and_the_layer_norms_or_all_that_is_fine_tuned(make_model, method):
    model = make_model(method=method)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    model.train()
    torch.manual_seed(0)
    batch = make_batch(model, [row for row in ROWS if row[0] in model.group])
    for _ in range(3):
        optimiser.zero_grad()
        model(batch.task_ids, **batch.tensors)["loss"].backward()
        optimiser.step()
    after = model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    expected = {name for name in before if name.startswith("method.") or name.endswith("layer_norm.weight")}
    assert changed == (set(before) if method.startswith("fine_tuning") else expected)


@multi_task_method
def test_a_mixed_batch_gives_the_gradients_of_its_rows_one_by_one(make_model, method):
    model = make_model(loud=True, method=method)

    def gradients(losses):
        model.zero_grad()
        losses.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    batch = make_batch(model, ROWS)
    mixed = gradients(model(batch.task_ids, **batch.tensors)["loss"])
    singles = []
    for row in ROWS:
        single = make_batch(model, [row])
        singles.append(model(single.task_ids, **single.tensors)["loss"])
    for name, wanted in gradients(torch.stack(singles).mean()).items():
        torch.testing.assert_close(mixed[name], wanted, rtol=1e-3, atol=1e-5, msg=name)


def test_a_checkpoint_holds_trained_tensors_and_configuration_only(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, CONFIGURATION, CARD}
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
    model.save_pretrained(tmp_path)
    loaded = MultiTaskModel.from_pretrained(tmp_path)
    assert loaded.method_settings == model.method_settings
    for task in model.group:
        assert loaded.scores(task, [ROWS[0][1]], 1) == model.scores(task, [ROWS[0][1]], 1)


@pytest.fixture
def saved(make_model, tmp_path_factory):
    """Save the checkpoint of an untrained model."""
    folder = tmp_path_factory.mktemp("saved")
    make_model().save_pretrained(folder)
    return folder


def test_a_folder_that_is_not_a_checkpoint_is_refused(saved, tmp_path):
    with pytest.raises(HyperFormerError, match=f"is not a checkpoint .*{CONFIGURATION}"):
        MultiTaskModel.from_pretrained(tmp_path)
    shutil.copy(saved / CONFIGURATION, tmp_path)
    with pytest.raises(HyperFormerError, match=f"is not a checkpoint .*{WEIGHTS}"):
        MultiTaskModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "added", "shape"])
def test_tensors_that_do_not_fit_are_refused_by_name(saved, tmp_path, fault):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    tensors = load_file(saved / WEIGHTS)
    name = "method.stacks.encoder.generators.norm.gain.bias"
    if fault == "missing":
        del tensors[name]
    elif fault == "added":
        name = "backbone.t5.shared.weight"
        tensors[name] = torch.zeros(2)
    else:
        tensors[name] = torch.zeros(3)
    save_file(tensors, tmp_path / WEIGHTS)
    configuration = json.loads((tmp_path / CONFIGURATION).read_text())
    configuration["files"][WEIGHTS] = sha256(tmp_path / WEIGHTS)
    (tmp_path / CONFIGURATION).write_text(json.dumps(configuration))
    with pytest.raises(HyperFormerError, match=f"do not fit the model: 1 .*'{name}'"):
        MultiTaskModel.from_pretrained(tmp_path)


def test_an_unknown_task_is_refused_with_the_known_ones(make_model):
    with pytest.raises(HyperFormerError, match="unknown task 'moods'; expected one of mood, mood3, likeness"):
        make_model().answer("moods", SENTENCES)


def test_batching_by_length_keeps_the_rows_order(make_model):
    model = make_model(loud=True)
    together = model.answer("mood3", SENTENCES, EvaluationSettings(batch_size=2))
    for row, answer in zip(SENTENCES, together, strict=True):
        alone = model.predict("mood3", row)
        assert answer.label == alone.label
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert len({round(answer.probabilities["good"], 4) for answer in together}) == len(SENTENCES)
    assert model.answer("mood3", []) == []


def test_a_classification_answer_is_the_likeliest_label_and_a_regression_answer_the_expected_number(make_model):
    model = make_model(loud=True)
    mood = model.predict("mood3", SENTENCES[0])
    assert set(mood.probabilities) == {"quite bad", "good", "neither"}
    assert sum(mood.probabilities.values()) == pytest.approx(1.0)
    assert mood.label == max(mood.probabilities, key=mood.probabilities.__getitem__)
    assert mood.value is None
    likeness = model.predict("likeness", {"a": "dull", "b": "dull"})
    assert likeness.value == pytest.approx(sum(float(text) * share for text, share in likeness.probabilities.items()))


@torch.no_grad()
@every_method
def test_a_baked_task_scores_as_the_model_does(make_model, method):
    model = make_model(loud=True, method=method)
    for task in model.group:
        baked = model.bake(task)
        rows = baked.encode_examples([Example(task, source, "") for _, source, _ in ROWS], model.backbone_settings)
        batch = baked.collate(rows)
        scores = baked.scores(batch["input_ids"], batch["attention_mask"], model.answers[task], "constrained")
        wanted = torch.tensor([s.values for s in model.scores(task, [source for _, source, _ in ROWS], 8)])
        torch.testing.assert_close(scores, wanted, rtol=1e-6, atol=1e-5)


def test_scoring_leaves_no_dropout_on(make_model):
    model = make_model(loud=True)
    model.train()
    first, second = (model.scores("mood", [ROWS[0][1]], 1)[0].values for _ in range(2))
    assert first == second


def test_threads_answer_with_the_weights_of_their_own_task(make_model):
    model = make_model(loud=True)
    sources = [source for _, source, _ in ROWS]
    expected = {task: model.scores(task, sources, 2) for task in model.group}
    start = threading.Barrier(len(model.group))

    def score(task):
        start.wait()
        return [model.scores(task, sources, 2) for _ in range(20)]

    with ThreadPoolExecutor(len(model.group)) as pool:
        for task, results in zip(model.group, pool.map(score, model.group), strict=True):
            assert all(result == expected[task] for result in results)


# --- one model per task


PER_TASK = ["adapters_per_task", "fine_tuning_per_task"]


def make_groups(make_model, method):
    """Make a model for each of the three tasks, with different tensors."""
    model = make_model(method=method)
    first = {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
    draw = torch.Generator().manual_seed(0)
    trained = [
        {name: tensor + 0.05 * torch.randn(tensor.shape, generator=draw) for name, tensor in first.items()}
        for _ in model.tasks
    ]
    return TaskModels.assemble(model, [[name] for name in model.tasks], trained)


def score_tasks(models):
    return {task: models[task].scores(task, [source for _, source, _ in ROWS], 2) for task in models}


@pytest.mark.parametrize("method", PER_TASK)
def test_each_task_is_answered_by_its_own_group_in_any_order(make_model, method):
    models = make_groups(make_model, method)
    wanted = score_tasks(models)
    for task in ("likeness", "mood", "likeness", "mood3", "mood"):
        assert models[task].scores(task, [source for _, source, _ in ROWS], 2) == wanted[task]
    groups, mood3 = [[name] for name in models], trained_tensors(models["mood3"])
    other = TaskModels.assemble(make_model(method=method), groups, [mood3] * 3)
    assert score_tasks(other)["mood3"] == wanted["mood3"]
    assert score_tasks(other)["mood"] != wanted["mood"]


@pytest.mark.parametrize("method", PER_TASK)
def test_the_models_of_tasks_share_exactly_the_frozen_weights(make_model, method):
    models = make_groups(make_model, method)
    first, second = (dict(models[task].named_parameters()) for task in ("mood", "likeness"))
    assert all((second[name] is tensor) == (not tensor.requires_grad) for name, tensor in first.items())


@pytest.mark.parametrize("method", PER_TASK)
def test_a_checkpoint_of_several_models_restores_each(make_model, tmp_path, method):
    models = make_groups(make_model, method)
    wanted = score_tasks(models)
    models.save_pretrained(tmp_path)
    names = {f"trained-{task}.safetensors" for task in models}
    assert {path.name for path in tmp_path.glob("*.safetensors")} == names
    assert score_tasks(TaskModels.from_pretrained(tmp_path)) == wanted
    alone = MultiTaskModel.from_pretrained(tmp_path, task="mood3")
    assert alone.scores("mood3", [source for _, source, _ in ROWS], 2) == wanted["mood3"]
    for task in (None, "moodd"):
        with pytest.raises(HyperFormerError, match=f"got task {task!r}; expected one of mood, mood3, likeness"):
            MultiTaskModel.from_pretrained(tmp_path, task=task)
    (tmp_path / "trained-mood3.safetensors").unlink()
    with pytest.raises(HyperFormerError, match=r"is not a checkpoint .it has no trained-mood3.safetensors"):
        TaskModels.from_pretrained(tmp_path)


@pytest.mark.parametrize("method", PER_TASK)
@torch.no_grad()
def test_a_baked_task_keeps_its_own_tensors_when_another_is_asked(make_model, method):
    models = make_groups(make_model, method)
    wanted = score_tasks(models)
    baked = {task: model.bake(task) for task, model in models.items()}
    model = models.first
    for task, backbone in baked.items():
        rows = backbone.encode_examples([Example(task, source, "") for _, source, _ in ROWS], model.backbone_settings)
        batch = backbone.collate(rows)
        scores = backbone.scores(batch["input_ids"], batch["attention_mask"], model.answers[task], "constrained")
        torch.testing.assert_close(scores, torch.tensor([s.values for s in wanted[task]]), rtol=1e-5, atol=1e-5)


# --- generation


@pytest.fixture
def make_generative(backbone_settings):
    """Make a model with a task of each kind, generation included."""

    def make(**changes):
        torch.manual_seed(2)
        echo = {"text": "say again: {sentence}", "kind": "generation", "label_column": "sentence", "metrics": ["bleu"]}
        settings = backbone_settings.model_copy(update=changes)
        tasks = Tasks(task_settings() | {"echo": echo})
        model = MultiTaskModel(settings, method_settings("hyperformer_plus_plus"), tasks)
        with torch.no_grad():
            for parameter in model.parameters():  # so that the output depends on the input
                parameter.normal_(std=0.5)
        return model.eval()

    return make


def decode_greedily(model, task, source, limit):
    """Decode a source greedily, without cache, padding or batch."""
    ids = torch.tensor([model.backbone.tokenizer(source, truncation=True, max_length=32)["input_ids"]])
    generated = [model.backbone.t5.config.decoder_start_token_id]
    weights = model.method.weights(torch.tensor([model.task_id(task)]))
    with torch.no_grad(), model.backbone.active_weights.use(weights):
        while len(generated) <= limit and generated[-1] != model.backbone.tokenizer.eos_token_id:
            logits = model.backbone.t5(input_ids=ids, decoder_input_ids=torch.tensor([generated])).logits
            generated.append(int(logits[0, -1].argmax()))
    return model.backbone.tokenizer.decode(generated, skip_special_tokens=True).strip()


def test_greedy_generation_takes_the_likeliest_tokens_with_the_tasks_adapters(make_generative):
    model = make_generative()
    sources = [f"say again: {row['sentence']}" for row in SENTENCES]
    wanted = [decode_greedily(model, "echo", source, 16) for source in sources]
    assert model.generate("echo", sources, EvaluationSettings(batch_size=2)) == wanted
    assert len(set(wanted)) > 1
    assert [answer.label for answer in model.answer("echo", SENTENCES)] == wanted
    assert model.answer("echo", SENTENCES)[0].probabilities == {}


def test_more_beams_find_answers_that_are_at_least_as_likely(make_generative):
    model = make_generative()
    sources = [f"say again: {row['sentence']}" for row in SENTENCES]

    def likelihood(texts):
        rows = model.backbone.encode_examples(
            [Example("echo", *pair) for pair in zip(sources, texts, strict=True)], SHORT
        )
        task_ids = torch.tensor([model.task_id("echo")] * len(rows))
        return -float(model.row_losses(task_ids, model.backbone.collate(rows)).sum().detach())

    greedy, four = (model.generate("echo", sources, EvaluationSettings(batch_size=8, num_beams=n)) for n in (1, 4))
    assert greedy != four
    assert likelihood(four) >= likelihood(greedy)


SHORT = BackboneSettings(path="", max_source_tokens=32, max_target_tokens=16)


def test_labels_may_be_generated_and_a_text_that_is_no_label_is_returned_as_it_is(make_generative):
    model = make_generative()
    generated = EvaluationSettings(batch_size=4, label_scoring="generated")
    answers = model.answer("mood", SENTENCES, generated)
    limit = model.answers["mood"].longest
    assert [a.label for a in answers] == [
        decode_greedily(model, "mood", f"sentence: {r['sentence']}", limit) for r in SENTENCES
    ]
    assert all(answer.probabilities == {} and answer.value is None for answer in answers)


def test_a_generated_label_has_its_number(make_generative, monkeypatch):
    model = make_generative()
    generated = EvaluationSettings(batch_size=4, label_scoring="generated")
    monkeypatch.setattr(model.backbone, "generate", lambda *_: ["quite bad"])
    assert model.answer("mood3", SENTENCES[:1], generated)[0].label == "quite bad"
    monkeypatch.setattr(model.backbone, "generate", lambda *_: ["2"])
    answer = model.answer("likeness", [{"a": "x", "b": "y"}], generated)[0]
    assert (answer.label, answer.value) == ("2", 2.0)


def test_an_answer_longer_than_max_target_tokens_is_refused(make_generative):
    with pytest.raises(
        HyperFormerError, match=r"task 'mood': an answer has . tokens; expected at most 1, .*target_tokens"
    ):
        make_generative(max_target_tokens=1)


# --- checkpoints: backbone, Hub


def test_a_checkpoint_names_its_backbone_with_a_checksum_and_refuses_another(make_model, tmp_path, backbone_folder):
    make_model().save_pretrained(tmp_path / "checkpoint")
    configuration = json.loads((tmp_path / "checkpoint" / CONFIGURATION).read_text())
    assert configuration["backbone"]["path"] == str(backbone_folder)
    moved = shutil.copytree(backbone_folder, tmp_path / "moved")
    assert MultiTaskModel.from_pretrained(tmp_path / "checkpoint", backbone=str(moved)).backbone_settings.path == str(
        moved
    )
    weights = load_file(moved / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(HyperFormerError, match=r"is not the one that .* was trained on.*backbone="):
        MultiTaskModel.from_pretrained(tmp_path / "checkpoint", backbone=str(moved))


def test_a_name_that_neither_folder_nor_hub_has_is_refused(tmp_path):
    with pytest.raises(HyperFormerError, match="no checkpoint 'somebody/nothing': neither a folder nor a repository"):
        MultiTaskModel.from_pretrained("somebody/nothing")


def test_pushing_uploads_what_saving_writes(make_model, monkeypatch):
    calls = []

    class Hub:
        def create_repo(self, name, **options):
            calls.append((name, options))

        def upload_folder(self, repo_id, folder_path):
            calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    monkeypatch.setattr(saving, "HfApi", Hub)
    make_model().push_to_hub("somebody/tasks", private=True)
    assert calls == [
        ("somebody/tasks", {"private": True, "exist_ok": True}),
        ("somebody/tasks", [CARD, CONFIGURATION, WEIGHTS]),
    ]


def test_a_failed_upload_is_an_error_with_advice(make_model):
    with pytest.raises(HyperFormerError, match=r"cannot upload to the Hub repository 'somebody/tasks' .*hf auth login"):
        make_model().push_to_hub("somebody/tasks")


# --- counting


T5 = {
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
BASE = {"small": 60_506_624, "base": 222_903_552}
"""Without the additional position-bias table of the paper's version of transformers."""


@pytest.mark.parametrize(
    ("method", "size", "added", "norms", "total", "percent"),
    [
        ("adapters_multi_task", "small", 3_271_680, 16_384, 1.054, 0.679),
        ("hyperformer", "small", 27_997_248, 16_384, 1.463, 5.787),
        ("hyperformer_plus_plus", "small", 2_399_392, 16_384, 1.040, 0.499),
        ("adapters_multi_task", "base", 14_533_632, 47_616, 1.065, 0.818),
        ("hyperformer", "base", 122_296_128, 47_616, 1.549, 6.861),
        ("hyperformer_plus_plus", "base", 5_163_440, 47_616, 1.023, 0.292),
        ("shared_adapter", "small", 430_464, 16_384, 1.007, 0.092),
        ("fine_tuning_multi_task", "small", 0, BASE["small"], 1.0, 12.5),
        ("fine_tuning_per_task", "small", 0, 8 * BASE["small"], 8.0, 100.0),
        # the paper prints 0.74 and 0.87 % per task
        ("adapters_per_task", "small", 8 * 430_464, 8 * 16_384, 1.059, 0.739),
        ("adapters_per_task", "base", 8 * 1_881_216, 8 * 47_616, 1.069, 0.865),
    ],
)
def test_the_parameters_of_a_configuration_are_those_of_the_paper(tmp_path, method, size, added, norms, total, percent):
    T5Config(**T5[size]).save_pretrained(tmp_path)  # and no weights
    sizes = {} if method.startswith("fine") else {"reduction_factor": 32} | (PAPER if "hyper" in method else {})
    eight = Tasks({f"task{i}": task_settings()["mood"] for i in range(8)})
    settings = BackboneSettings(path=str(tmp_path), max_source_tokens=128, max_target_tokens=128)
    counts = count_parameters(settings, method_settings(method, **sizes), eight)
    assert counts["backbone"] == BASE[size]
    assert counts["added"] == added
    assert counts["trained"] == added + norms
    assert counts["total_ratio"] == pytest.approx(total, abs=5e-4)
    assert counts["trained_percent_per_task"] == pytest.approx(percent, abs=5e-4)


@every_method
def test_the_counted_parameters_are_those_that_a_model_trains(make_model, backbone_settings, tasks, method):
    model = make_model(method=method)
    counted = count_parameters(backbone_settings, model.method_settings, tasks)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted["trained"] == trained * len(group_tasks(model.method_settings, list(model.tasks)))
    assert counted["backbone"] == sum(p.numel() for p in model.backbone.parameters())
