"""Few-shot transfer of a trained model to new tasks."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from toys import GOOD, make_baselines, method_settings, task_settings, toy_sentences, train_settings

from hyperformer import evaluation
from hyperformer.core.errors import HyperFormerError
from hyperformer.data.storage import read_rows, sample_rows, write_rows
from hyperformer.export.bundle import export
from hyperformer.model.checkpoint import CONFIGURATION
from hyperformer.model.multi_task import DEFAULT_EVALUATION, MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.model.tensors import trained_tensors
from hyperformer.runtime import load
from hyperformer.settings import Tasks, TransferSettings
from hyperformer.training import adapt, transfer

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")

EMBEDDING = "method.task_embedding.weight"
MULTI_TASK = ["hyperformer_plus_plus", "hyperformer", "adapters_multi_task", "fine_tuning_multi_task"]


@pytest.fixture(scope="session")
def new_tasks():
    """Two tasks that the checkpoint does not have; the first is `mood` with other answers."""
    again = {**task_settings()["mood"], "labels": {0: "negative", 1: "positive"}}
    praise = {**task_settings()["mood"], "text": "sentence: {sentence}", "labels": {0: "good", 1: "quite bad"}}
    return Tasks({"again": again, "praise": praise})


@pytest.fixture(scope="session")
def new_rows(tmp_path_factory):
    """Return the folder of rows of both tasks."""
    sentences = toy_sentences()
    praises = [{**row, "label": int(any(word in row["sentence"] for word in GOOD[:3]))} for row in sentences]
    folder = tmp_path_factory.mktemp("new rows")

    def split(rows):
        splits = {"train": rows[:48], "validation": rows[48:], "test": rows[::5]}
        return {name: Dataset.from_list(split_rows) for name, split_rows in splits.items()}

    write_rows({"again": split(sentences), "praise": split(praises)})(folder)
    return folder


@pytest.fixture
def adapted(new_rows, new_tasks, checkpoint, tmp_path):
    """Return a function that adapts the checkpoint, and returns what initialized each task and the new folder."""

    def run(name="adapted", tasks=new_tasks, seed=0, states="states", **changes):
        defaults = {"checkpoint": str(checkpoint), "samples": 16, "steps": 4, "batch_size": 4, "learning_rate": 1e-3}
        settings = TransferSettings(**{**defaults, "warmup_steps": 0, "precision": "fp32", **changes})
        write, origins = adapt(new_rows, tasks, settings, seed, tmp_path / states)
        write(tmp_path / name)
        return origins, tmp_path / name

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, train):
    """Return a function from a method to its checkpoint after a few steps."""
    checkpoints = {}

    def train_method(method):
        if method not in checkpoints:
            folder = checkpoints[method] = tmp_path_factory.mktemp(method)
            write, _ = train(
                train_settings(steps=4, evaluate_every=4), 0, tmp_path_factory.mktemp("states"), method_settings(method)
            )
            write(folder)
        return checkpoints[method]

    return train_method


def tensors(folder, task):
    return load_file(folder / f"trained-{task}.safetensors")


@pytest.fixture
def bad_guess(monkeypatch):
    """Let the toy model, whose loss is high, be better than guessing."""
    monkeypatch.setattr(transfer, "compute_guess_loss", lambda answers: 9.0)


def test_a_task_is_initialized_from_the_one_with_the_lowest_loss_on_its_samples(adapted, bad_guess):
    origins, _ = adapted()
    assert origins["again"] == "mood"


@pytest.mark.parametrize("start", ["nearest", "mean", "random"])
def test_shared_weights_start_as_trained_and_task_specific_ones_as_the_setting_says(
    start, adapted, checkpoint, bad_guess
):
    origins, folder = adapted(initialize_from=start, learning_rate=1e-30)
    before, after = trained_tensors(MultiTaskModel.from_pretrained(checkpoint)), tensors(folder, "again")
    embeddings = before.pop(EMBEDDING)
    embedding = after.pop(EMBEDDING)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-20)
    assert embedding.shape == (1, embeddings.shape[1])
    distances = (embedding - embeddings).abs().amax(1)  # of each trained task
    if start == "nearest":
        assert distances.argmin() == list(task_settings()).index(origins["again"])
        assert distances.min() < 1e-6
    elif start == "mean":
        torch.testing.assert_close(embedding[0], embeddings.mean(0))
    else:
        assert distances.min() > 0.1
        assert (embedding[0] - embeddings.mean(0)).abs().max() > 0.1


def test_a_task_whose_nearest_trained_task_is_no_better_than_guessing_is_initialized_from_the_mean(adapted, caplog):
    caplog.set_level("INFO", logger="hyperformer")
    origins, folder = adapted(label_smoothing=0.2, learning_rate=1e-30)
    assert origins == {"again": "mean", "praise": "mean"}
    expected, _ = adapted("mean", states="more states", initialize_from="mean", learning_rate=1e-30)
    assert expected == origins
    for task in origins:
        torch.testing.assert_close(tensors(folder, task), tensors(folder.with_name("mean"), task), rtol=0, atol=1e-6)
    (line,) = [message for message in caplog.messages if message.startswith("again: the loss of the nearest")]
    assert re.search(r"task, mood, is \d\.\d{3}, and that of guessing is 0\.\d{3}; using the mean of all", line)


def test_a_task_that_is_like_no_trained_task_starts_with_the_shared_adapter_alone(adapted, train, tmp_path):
    method = method_settings(
        "hyperformer_plus_plus", shared_adapter=True, embeddings="product", layer_norm="conditional_offset"
    )
    train(train_settings(steps=4), 0, tmp_path / "training", method)[0](tmp_path / "trained")
    before = MultiTaskModel.from_pretrained(tmp_path / "trained")
    assert before.method.diagnose()["offset_ratio"] > 0
    origins, folder = adapted(checkpoint=str(tmp_path / "trained"), learning_rate=1e-30)
    assert origins == {"again": "shared adapter", "praise": "shared adapter"}
    weights = MultiTaskModel.from_pretrained(folder, task="again").method.weights(torch.tensor([0]))
    torch.testing.assert_close(weights.up[0], before.method.shared_adapter.up, rtol=0, atol=1e-12)
    shared_gains = torch.cat([stack.generators.norm.shared.gain for stack in before.method.stacks.values()])
    torch.testing.assert_close(weights.gain[0], shared_gains, rtol=0, atol=1e-12)


def test_guessing_spreads_the_entropy_of_the_labels_over_the_tokens_of_an_answer():
    assert transfer.compute_guess_loss([[0], [1], [0], [1]]) == pytest.approx(math.log(2))
    assert transfer.compute_guess_loss([[5, 1]] * 3 + [[6, 7, 8, 1]]) == pytest.approx(
        0.75 * math.log(4 / 3) / 2 + 0.25 * math.log(4) / 4
    )
    assert transfer.compute_guess_loss([[3]] * 5) == 0


def test_an_adapted_checkpoint_records_steps_threads_and_passes_of_its_own_tasks(adapted):
    _, folder = adapted()
    record = json.loads((folder / CONFIGURATION).read_text())["training"]
    assert record == {"steps": 8, "threads": 1, "passes": {"again": 1.0, "praise": 1.0}}  # 4 steps of 4 of 16 rows each


@pytest.mark.parametrize("method", MULTI_TASK[:3])
@pytest.mark.parametrize("weights", ["all", "task_specific"])
def test_exactly_the_weights_of_the_setting_are_trained(method, weights, adapted, trained):
    _, folder = adapted(train=weights, checkpoint=str(trained(method)))
    model = MultiTaskModel.from_pretrained(trained(method))
    specific = {f"method.{name}" for name in model.method.task_specific_names()}
    before, after = trained_tensors(model), tensors(folder, "again")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if name not in specific and not torch.equal(after[name], tensor)}
    assert specific
    assert all(not any(torch.equal(after[name][0], tensor) for tensor in before[name]) for name in specific)
    assert changed == (before.keys() - specific if weights == "all" else set())


def test_each_task_is_adapted_independently(adapted, new_tasks):
    _, both = adapted("both")
    _, alone = adapted("alone", Tasks({"praise": new_tasks.root["praise"]}), states="other states")
    adapted_both, adapted_alone = tensors(both, "praise"), load_file(alone / "trained.safetensors")
    assert adapted_both.keys() == adapted_alone.keys()
    assert all(torch.equal(adapted_both[name], adapted_alone[name]) for name in adapted_both)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(adapted):
    folders = [adapted(name, seed=seed, states=name)[1] for name, seed in (("first", 0), ("again", 0), ("other", 1))]
    first, again, other = ((folder / "trained-again.safetensors").read_bytes() for folder in folders)
    assert first == again != other


def test_an_interrupted_adaptation_resumes_to_the_same_bytes(adapted, monkeypatch):
    _, straight = adapted("straight", states="other states")
    run_loop, calls = transfer.run_loop, []

    def interrupted_run_loop(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:  # the first task is done
            raise KeyboardInterrupt
        return run_loop(*args, **kwargs)

    monkeypatch.setattr(transfer, "run_loop", interrupted_run_loop)
    with pytest.raises(KeyboardInterrupt):
        adapted()
    _, resumed = adapted()
    for file in straight.iterdir():
        assert (resumed / file.name).read_bytes() == file.read_bytes()


def test_a_larger_sample_contains_the_smaller_one(new_rows):
    few, more = ({row["sentence"] for row in sample_rows(new_rows, "again", "train", n, 3)} for n in (4, 16))
    assert len(few) == 4
    assert few < more
    assert {row["sentence"] for row in sample_rows(new_rows, "again", "train", 4, 4)} != few


def test_all_rows_are_used_without_a_number_of_samples(adapted, caplog):
    with caplog.at_level("INFO"):
        adapted(samples=None)
    assert "adapting to again on 48 rows" in caplog.text


def test_adaptation_raises_the_probability_of_the_samples(adapted, new_rows):
    means = []
    for name, learning_rate in (("before", 1e-30), ("after", 1e-2)):
        _, folder = adapted(name, samples=48, steps=60, batch_size=16, learning_rate=learning_rate, states=name)
        model = TaskModels.from_pretrained(folder)
        rows = read_rows(new_rows, "praise", "train")
        truths = [model.tasks["praise"].answer_text(row) for row in rows]
        answers = model.answer("praise", list(rows))
        means.append(sum(a.probabilities[truth] for a, truth in zip(answers, truths, strict=True)) / len(rows))
    assert means[1] > means[0] + 0.02


def test_adapted_tasks_are_exported_as_any_other(adapted, new_rows, export_settings, tmp_path):
    _, folder = adapted()
    model = TaskModels.from_pretrained(folder)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, new_rows)
    export(folder, new_rows, metrics, make_baselines(model.tasks), export_settings, DEFAULT_EVALUATION)(tmp_path)
    row = read_rows(new_rows, "praise", "test")[0]
    answer, expected = load(tmp_path / "praise")(row), model.predict("praise", row)
    assert answer.label == expected.label
    assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 49}, r"task 'again' has 48 train rows; expected at least 49\. Use fewer samples\."),
        ({"checkpoint": "nowhere"}, "no checkpoint 'nowhere'"),
    ],
)
def test_an_adaptation_that_is_impossible_is_refused(changes, message, adapted):
    with pytest.raises(HyperFormerError, match=message):
        adapted(**changes)


def test_per_task_models_are_refused(adapted, trained):
    with pytest.raises(HyperFormerError, match="adapters_per_task trains one model per task; expected one model for"):
        adapted(checkpoint=str(trained("adapters_per_task")))


def test_a_trained_backbone_has_no_task_specific_weights(adapted, trained):
    origins, _ = adapted(checkpoint=str(trained("fine_tuning_multi_task")))
    assert origins == {"again": "shared", "praise": "shared"}
    with pytest.raises(HyperFormerError, match="'task_specific', but fine_tuning_multi_task has no task-specific"):
        adapted(checkpoint=str(trained("fine_tuning_multi_task")), train="task_specific")


def test_answers_that_no_sample_has_are_named(adapted, caplog):
    caplog.set_level("WARNING", logger="hyperformer")
    adapted(samples=1)
    assert [record.message for record in caplog.records] == [
        "again: none of the 1 rows has the answer positive",
        "praise: none of the 1 rows has the answer quite bad",
    ]


def test_a_checkpoint_is_adapted_on_its_backbone_in_another_folder(adapted, checkpoint, backbone_folder, tmp_path):
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    configuration = json.loads((moved / CONFIGURATION).read_text())
    configuration["backbone"]["path"] = str(tmp_path / "nowhere")
    (moved / CONFIGURATION).write_text(json.dumps(configuration))
    with pytest.raises(HyperFormerError, match=r"has moved, set backbone= or transfer\.backbone"):
        adapted(checkpoint=str(moved))
    assert adapted(checkpoint=str(moved), backbone=str(backbone_folder))[0] == adapted(states="others")[0]
    (moved / CONFIGURATION).write_text(
        json.dumps({name: configuration[name] for name in configuration if name != "method"})
    )
    with pytest.raises(HyperFormerError, match=r"is damaged \(configuration.json has no 'method'\)"):
        adapted(checkpoint=str(moved), states="more")
