"""A trained model adapted to new tasks from few rows."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from toys import GOOD, method_settings, task_settings, toy_sentences, train_settings

from hyperformer import evaluation
from hyperformer.config import Tasks, TransferSettings
from hyperformer.data import drawn_rows, read_rows, write_rows
from hyperformer.export.bundle import export
from hyperformer.model import CONFIGURATION, SCORED, MultiTaskModel, trained_tensors
from hyperformer.runtime import load
from hyperformer.training import adapt
from hyperformer.types import HyperFormerError

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")

EMBEDDING = "method.task_embedding.weight"
MULTI_TASK = ["hyperformer_plus_plus", "hyperformer", "adapters_multi_task", "fine_tuning_multi_task"]


@pytest.fixture(scope="session")
def new_tasks():
    """Two tasks that the checkpoint does not know: the first asks what `mood` asks, in other words."""
    again = {**task_settings()["mood"], "labels": {0: "negative", 1: "positive"}}
    praise = {**task_settings()["mood"], "text": "sentence: {sentence}", "labels": {0: "good", 1: "quite bad"}}
    return Tasks({"again": again, "praise": praise})


@pytest.fixture(scope="session")
def new_rows(tmp_path_factory):
    """Rows of both: good or bad; and bright ones, or all others."""
    sentences = toy_sentences()
    praises = [{**row, "label": int(any(word in row["sentence"] for word in GOOD[:3]))} for row in sentences]
    folder = tmp_path_factory.mktemp("new rows")

    def split(rows):
        parts = {"train": rows[:48], "validation": rows[48:], "test": rows[::5]}
        return {name: Dataset.from_list(part) for name, part in parts.items()}

    write_rows({"again": split(sentences), "praise": split(praises)})(folder)
    return folder


@pytest.fixture
def adapted(new_rows, new_tasks, checkpoint, tmp_path):
    """Adapts the checkpoint: what each task started from, and the folder of the new one."""

    def run(name="adapted", tasks=new_tasks, seed=0, states="states", **changes):
        given = {"checkpoint": str(checkpoint), "samples": 16, "steps": 4, "batch_size": 4, "learning_rate": 1e-3}
        settings = TransferSettings(**{**given, "warmup_steps": 0, "precision": "fp32", **changes})
        write, starts = adapt(new_rows, tasks, settings, seed, tmp_path / states)
        write(tmp_path / name)
        return starts, tmp_path / name

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, train):
    """A checkpoint of a method after a few steps."""
    made = {}

    def of(method):
        if method not in made:
            folder = made[method] = tmp_path_factory.mktemp(method)
            write, _ = train(
                train_settings(steps=4, evaluate_every=4), 0, tmp_path_factory.mktemp("states"), method_settings(method)
            )
            write(folder)
        return made[method]

    return of


def tensors(folder, task):
    return load_file(folder / f"trained-{task}.safetensors")


def test_a_task_starts_from_the_one_that_its_samples_are_likeliest_under(adapted):
    starts, _ = adapted()
    assert starts["again"] == "mood"


@pytest.mark.parametrize("start", ["nearest", "mean", "random"])
def test_what_is_shared_starts_as_it_was_trained_and_the_tasks_own_as_the_setting_says(start, adapted, checkpoint):
    starts, folder = adapted(initialize_from=start, learning_rate=1e-30)
    before, after = trained_tensors(MultiTaskModel.from_pretrained(checkpoint)), tensors(folder, "again")
    embeddings = before.pop(EMBEDDING)
    found = after.pop(EMBEDDING)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-20)
    assert found.shape == (1, embeddings.shape[1])
    near = (found - embeddings).abs().amax(1)  # of each trained task
    if start == "nearest":
        assert near.argmin() == list(task_settings()).index(starts["again"])
        assert near.min() < 1e-6
    elif start == "mean":
        torch.testing.assert_close(found[0], embeddings.mean(0))
    else:
        assert near.min() > 0.1
        assert (found[0] - embeddings.mean(0)).abs().max() > 0.1


@pytest.mark.parametrize("method", MULTI_TASK[:3])
@pytest.mark.parametrize("trains", ["all", "task_specific"])
def test_exactly_what_the_setting_names_is_trained(method, trains, adapted, trained):
    _, folder = adapted(train=trains, checkpoint=str(trained(method)))
    model = MultiTaskModel.from_pretrained(trained(method))
    own = {f"method.{name}" for name in model.method.own_names()}
    before, after = trained_tensors(model), tensors(folder, "again")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if name not in own and not torch.equal(after[name], tensor)}
    assert own
    assert all(not any(torch.equal(after[name][0], one) for one in before[name]) for name in own)
    assert changed == (before.keys() - own if trains == "all" else set())


def test_each_task_is_adapted_as_if_it_were_alone(adapted, new_tasks):
    _, both = adapted("both")
    _, alone = adapted("alone", Tasks({"praise": new_tasks.root["praise"]}), states="other states")
    one, two = tensors(both, "praise"), load_file(alone / "trained.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(adapted):
    folders = [adapted(name, seed=seed, states=name)[1] for name, seed in (("one", 0), ("two", 0), ("three", 1))]
    one, two, three = ((folder / "trained-again.safetensors").read_bytes() for folder in folders)
    assert one == two != three


def test_a_stopped_adaptation_goes_on_to_the_same_bytes(adapted, monkeypatch):
    from hyperformer.training import transfer

    _, straight = adapted("straight", states="other states")
    own, calls = transfer.run_loop, []

    def stops(*given, **named):
        calls.append(given)
        if len(calls) == 2:  # the first task is done
            raise KeyboardInterrupt
        return own(*given, **named)

    monkeypatch.setattr(transfer, "run_loop", stops)
    with pytest.raises(KeyboardInterrupt):
        adapted()
    _, resumed = adapted()
    for file in straight.iterdir():
        assert (resumed / file.name).read_bytes() == file.read_bytes()


def test_samples_of_a_smaller_number_are_among_those_of_a_larger(new_rows):
    few, more = ({row["sentence"] for row in drawn_rows(new_rows, "again", "train", n, 3)} for n in (4, 16))
    assert len(few) == 4
    assert few < more
    assert {row["sentence"] for row in drawn_rows(new_rows, "again", "train", 4, 4)} != few


def test_all_rows_are_taken_where_no_number_is_given(adapted, caplog):
    with caplog.at_level("INFO"):
        adapted(samples=None)
    assert "adapting to again from 48 rows" in caplog.text


def test_the_samples_grow_likelier(adapted, new_rows):
    found = []
    for name, rate in (("before", 1e-30), ("after", 1e-2)):
        _, folder = adapted(name, samples=48, steps=60, batch_size=16, learning_rate=rate, states=name)
        model = MultiTaskModel.from_pretrained(folder)
        rows = read_rows(new_rows, "praise", "train")
        truths = [model.tasks["praise"].answer_text(row) for row in rows]
        answers = model.answer("praise", list(rows))
        found.append(sum(a.probabilities[truth] for a, truth in zip(answers, truths, strict=True)) / len(rows))
    assert found[1] > found[0] + 0.02


def test_adapted_tasks_are_exported_as_any_other(adapted, new_rows, export_settings, tmp_path):
    _, folder = adapted()
    model = MultiTaskModel.from_pretrained(folder)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, new_rows)
    export(folder, new_rows, metrics, export_settings, SCORED)(tmp_path)
    row = read_rows(new_rows, "praise", "test")[0]
    found, expected = load(tmp_path / "praise")(row), model.predict("praise", row)
    assert found.label == expected.label
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 49}, "task 'again' has 48 rows of train, expected 49; take fewer samples"),
        ({"checkpoint": "nowhere"}, "no checkpoint 'nowhere'"),
    ],
)
def test_what_cannot_be_adapted_is_said(changes, said, adapted):
    with pytest.raises(HyperFormerError, match=said):
        adapted(**changes)


def test_models_of_a_task_each_are_refused(adapted, trained):
    with pytest.raises(HyperFormerError, match="adapters_per_task trained a model a task; expected one model for all"):
        adapted(checkpoint=str(trained("adapters_per_task")))


def test_a_backbone_that_is_trained_itself_has_nothing_of_a_tasks_own(adapted, trained):
    starts, _ = adapted(checkpoint=str(trained("fine_tuning_multi_task")))
    assert starts == {"again": "shared", "praise": "shared"}
    with pytest.raises(HyperFormerError, match="'task_specific', but fine_tuning_multi_task has no weights"):
        adapted(checkpoint=str(trained("fine_tuning_multi_task")), train="task_specific")


def test_answers_that_no_sample_has_are_named(adapted, caplog):
    caplog.set_level("WARNING", logger="hyperformer")
    adapted(samples=1)
    assert [record.message for record in caplog.records] == [
        "again: none of the 1 rows has the answer positive",
        "praise: none of the 1 rows has the answer quite bad",
    ]


def test_a_checkpoint_is_adapted_on_its_backbone_wherever_that_lies(adapted, checkpoint, backbone_folder, tmp_path):
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    said = json.loads((moved / CONFIGURATION).read_text())
    said["backbone"]["path"] = str(tmp_path / "nowhere")
    (moved / CONFIGURATION).write_text(json.dumps(said))
    with pytest.raises(HyperFormerError, match=r"has moved, set backbone= or transfer\.backbone"):
        adapted(checkpoint=str(moved))
    assert adapted(checkpoint=str(moved), backbone=str(backbone_folder))[0] == adapted(states="others")[0]
    (moved / CONFIGURATION).write_text(json.dumps({name: said[name] for name in said if name != "method"}))
    with pytest.raises(HyperFormerError, match=r"is damaged \(configuration.json has no 'method'\)"):
        adapted(checkpoint=str(moved), states="more")
