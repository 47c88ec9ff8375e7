"""The report of a run: its figures against other ways to them, and a page that any run's data leave whole."""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from html_reader import Reader
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from sklearn.metrics.pairwise import cosine_similarity
from toys import task_settings

from hyperformer.config import Tasks
from hyperformer.manifest import FORMAT, Manifest
from hyperformer.report import Run, page, predictions, run, tables, write_pictures
from hyperformer.report.scores import by_task, means
from hyperformer.tasks import make

ODD = "<script>alert(1)</script> & \"'"
QUESTIONS = [
    "How good is it?",
    "Did it learn to the end?",
    "Where is it wrong?",
    "Can its probabilities be believed?",
    "What does it think is alike?",
    "What does it cost?",
    "Do the graphs answer as the model did?",
    "Where does it come from?",
]


def predicted(folder: Path, task: str, **columns: list[object]) -> None:
    (folder / task).mkdir(parents=True)
    pd.DataFrame(columns).to_csv(folder / task / "test.csv", index=False)


def described(folder: Path, task: str, method: str, more: dict[str, float]) -> None:
    (folder / task).mkdir(parents=True)
    for name, size in (("model.onnx", 2_000_000), ("tokenizer.json", 300_000)):
        (folder / task / name).write_bytes(b"0" * size)
    Manifest(
        format=FORMAT, task=task, kind="classification", text="{a}", labels=[], numbers=None, max_source_tokens=8,
        opset=18, backbone="b", method=method, files={"model.onnx": f"graph of {task}", "tokenizer.json": "words"},
        parity={"rows": 20, "ties": 1, "largest_difference": 2e-5, **more}, int8={}, metrics={},
        made_from={"code": "the same code", "data": f"data of {task}"},
    ).write(folder / task)  # fmt: skip


@pytest.fixture
def toy(tmp_path) -> Run:
    """A run of a classification task whose texts are odd, a regression, and a generation that was not exported."""
    settings = task_settings()
    mood = {**settings["mood"], "labels": {0: "NA", 1: ODD}}
    write = {"text": "{a}", "kind": "generation", "label_column": "b", "metrics": ["exact_match"]}
    named = {f"mood {ODD}".replace("/", ""): mood, "likeness": settings["likeness"], "write": write}
    known = make(Tasks(named))
    asked = tmp_path / "predictions"
    asked.mkdir()
    odd = next(iter(known))
    predicted(
        asked, odd, source=[f"{ODD} {n}" for n in range(4)], truth=["NA", "NA", ODD, ODD],
        answer=["NA", ODD, ODD, ODD], probability=[0.95, 0.85, 0.85, 0.6],
    )  # fmt: skip
    predicted(
        asked, "likeness", source=list("abcd"), truth=[0, 1, 3, 3], answer=[0, 1, 3, 2],
        probability=[0.9, 0.8, 0.7, 0.6], value=[0.25, 1.0, 2.5, None],
    )  # fmt: skip
    predicted(asked, "write", source=list("abcd"), truth=list("abcd"), answer=["a", "", "c", ODD])
    bundles = tmp_path / "bundles"
    described(bundles, odd, ODD, {"beyond": 2})
    described(bundles, "likeness", ODD, {})
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    configuration = {
        "backbone": {"path": str(tmp_path / "some" / "backbone"), "revision": None, "sha256": "0123"},
        "method": ODD, "methods": {ODD: {"task_embedding_dim": 4}}, "groups": [list(known)],
    }  # fmt: skip
    (checkpoint / run.CONFIGURATION).write_text(json.dumps(configuration))
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    save_file({run.EMBEDDING: vectors, "other": vectors}, checkpoint / run.WEIGHTS)
    scored = {name: {"mean": 60.0 + place, "accuracy": 60.0 + place} for place, name in enumerate(known)}
    plain = {name: {kind: {"mean": 30.0} for kind in ("majority", "tfidf", "frozen")} for name in known}
    counts = {"backbone": 1000, "added": 50, "trained": 60, "total_ratio": 1.05, "trained_percent_per_task": 2.0}
    history = [{"step": step, "mean": step / 2, **dict.fromkeys(known, step / 2)} for step in (50, 100)]
    return Run(
        known, {"test": scored}, plain, {name: {"test": {"rows": 4}} for name in known}, counts, history, bundles,
        asked, checkpoint, 7, 1e-4,
    )  # fmt: skip


def test_confusion_is_sklearns_and_other_answers_come_last():
    generator = np.random.default_rng(1)
    labels = ["c", "a", "b"]
    truths, answers = (generator.choice(labels, 50).tolist() for _ in range(2))
    found = predictions.confusion([*truths, "a"], [*answers, "odd"], labels)
    assert found[:, :3].tolist() == confusion_matrix(truths, answers, labels=labels).tolist()
    assert found[:, 3].tolist() == [0, 1, 0]


def test_calibration_is_what_it_is_by_hand():
    found = predictions.calibration(np.array([0.95, 0.85, 0.9, 0.6, 1.0]), np.array([True, True, False, False, True]))
    assert found.rows.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 2]  # an edge is of the bin below
    assert found.probability[[5, 8, 9]].tolist() == pytest.approx([0.6, 0.875, 0.975])
    assert found.right[[5, 8, 9]].tolist() == [0.0, 0.5, 1.0]
    assert found.error == pytest.approx((0.6 + 2 * 0.375 + 2 * 0.025) / 5)


def test_true_probabilities_are_off_by_what_chance_is_said_to_give():
    generator = np.random.default_rng(2)
    said = generator.uniform(0.5, 1.0, 600)
    errors = [predictions.calibration(said, generator.uniform(size=600) < said).error for _ in range(300)]
    assert np.mean(errors) == pytest.approx(predictions.calibration(said, said > 0).chance, rel=0.1)


def test_components_and_cosines_are_sklearns():
    vectors = np.random.default_rng(3).normal(size=(6, 8))
    points, shares = predictions.principal(vectors)
    fitted = PCA(2).fit(vectors)
    assert np.abs(points) == pytest.approx(np.abs(fitted.transform(vectors)))
    assert shares == pytest.approx(fitted.explained_variance_ratio_)
    assert np.take_along_axis(points, np.abs(points).argmax(0)[None], 0).min() > 0
    assert predictions.principal(-vectors[::-1])[1] == pytest.approx(shares)
    assert predictions.cosines(vectors) == pytest.approx(cosine_similarity(vectors))


def test_two_alike_or_thin_embeddings_have_a_map():
    points, shares = predictions.principal(np.ones((2, 1)))
    assert points.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert shares.tolist() == [0.0, 0.0]


def test_predictions_are_read_as_they_are(toy):
    odd = predictions.read(toy.predictions, next(iter(toy.tasks)))
    assert odd["truth"].tolist() == ["NA", "NA", ODD, ODD]
    assert odd["probability"].dtype == np.float64
    assert predictions.read(toy.predictions, "write")["answer"].tolist() == ["a", "", "c", ODD]


def test_numbers_are_gathered_by_their_truth(toy):
    task = toy.tasks["likeness"]
    table = predictions.read(toy.predictions, "likeness")
    found = predictions.by_truth(table, task.answers, task.numbers)
    assert found[["truth", "rows", "mean", "p50"]].to_numpy().tolist() == [
        [0.0, 1, 0.25, 0.25], [1.0, 1, 1.0, 1.0], [3.0, 1, 2.5, 2.5],
    ]  # fmt: skip


def test_the_worst_answers_are_the_surest_wrong_or_the_farthest(toy):
    numbers = dict(zip(toy.tasks["likeness"].answers, toy.tasks["likeness"].numbers, strict=True))
    table = predictions.read(toy.predictions, "likeness")
    assert predictions.worst(table, numbers, 3)["source"].tolist() == ["d", "c", "a"]  # no number is the farthest
    table = pd.DataFrame({"truth": list("aaa"), "answer": list("abc"), "probability": [1.0, 0.5, 0.7]})
    assert predictions.worst(table, None, 5)["answer"].tolist() == ["c", "b"]


def test_the_mean_is_over_tasks_with_the_error_of_independent_ones(toy):
    errors = [one["error"] for one in by_task(toy).values()]
    assert means(toy)["model"] == pytest.approx(61.0)
    assert means(toy)["error"] == pytest.approx(sum(error**2 for error in errors) ** 0.5 / 3)


def test_a_checkpoints_names_are_the_models():
    from hyperformer import model
    from hyperformer.methods.hypernetworks import HypernetworkMethod

    assert (run.CONFIGURATION, run.WEIGHTS) == (model.CONFIGURATION, model.WEIGHTS)
    assert run.EMBEDDING.removeprefix("method.") in HypernetworkMethod.own


def test_the_page_asks_and_answers_every_question(toy):
    text = page(toy)
    found = Reader(text)
    assert [words for tag, words in found.headings if tag == "h2"] == QUESTIONS
    assert [tag for tag, _ in found.headings][:2] == ["h1", "h2"]
    assert text.count('<p class="answer">') == len(QUESTIONS)
    assert "The mean over tasks is 61.0" in found.words
    assert "at step 100 of 100, the last one" in found.words
    assert f'The commonest mistake: "{ODD}" where the truth is "NA", 1 of 2 rows, 50.0%' in found.words
    assert f"expected calibration error over {predictions.BINS} bins" in found.words
    assert "The largest bundle has 2.3 MB." in found.words
    assert "Of 40 validation rows 38 have the same answer in graph and model; 2 are ties." in found.words
    assert "trained with seed 7" in found.words
    assert all(f"data of {name}" in found.words for name in toy.manifests)
    assert found.words.count("the same code") == 1


def test_the_page_needs_nothing_else_and_is_read_by_ear(toy):
    found = Reader(page(toy))
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "img", "iframe", "object"}
    named = [value for _, given in found.tags for key, value in given.items() if key in ("href", "src")]
    assert all(value == "data:," or value.startswith("#q") for value in named)
    assert not [key for _, given in found.tags for key in given if key.startswith("on")]
    assert dict(found.tags)["html"]["lang"] == "en"
    ids = [given["id"] for _, given in found.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert all(given.get("scope") in ("row", "col") for tag, given in found.tags if tag == "th")
    pictures = [given for tag, given in found.tags if tag == "svg" and "viewbox" in given]
    assert len(pictures) > 5
    assert all("aria-hidden" in given or (given["role"] == "img" and given["aria-label"]) for given in pictures)
    boxes = [given for _, given in found.tags if given.get("class") == "scroll"]
    assert all(given["tabindex"] == "0" and given["role"] == "group" and given["aria-label"] for given in boxes)


def test_odd_texts_are_shown_as_they_are(toy):
    text = page(toy)
    assert "<script" not in text
    assert Reader(text).words.count(ODD) > 5


def test_the_same_run_has_the_same_bytes_wherever_it_lies(toy, tmp_path):
    text, results = page(toy), tables(toy)
    moved = {name: getattr(toy, name).rename(tmp_path / f"other {name}") for name in ("bundles", "predictions")}
    other = replace(toy, **moved)
    assert (page(other), tables(other)) == (text, results)
    assert str(tmp_path) not in text


def test_a_run_with_less_has_less_to_show(toy):
    (toy.checkpoint / run.WEIGHTS).unlink()
    name = next(iter(toy.tasks))
    predictions_ = toy.predictions.with_name("generated")
    predicted(predictions_, name, source=list("ab"), truth=["NA", ODD], answer=["NA", "odd"])
    less = replace(
        toy, tasks={name: toy.tasks[name]}, history=[], bundles=toy.bundles / "none", predictions=predictions_
    )
    found = Reader(page(less))
    for words in (
        "Nothing was validated",
        "none of these",
        "No classification task has probabilities",
        "has no task embeddings",
        "No task of this run was exported",
        "on 1 task",
    ):
        assert words in found.words


def test_many_labels_are_shown_by_their_commonest_confusions(toy):
    labels = {number: f"label {number}" for number in range(20)}
    task = make(Tasks({"many": {**task_settings()["mood"], "labels": labels}}))["many"]
    truths = [*labels.values()] * 3
    predicted(toy.predictions, "many", source=truths, truth=truths, answer=[truths[1], *truths[1:]])
    less = replace(
        toy,
        tasks={"many": task},
        metrics={"test": {"many": {"mean": 98.0}}},
        baselines={"many": toy.baselines["write"]},
        counts={"many": {"test": {"rows": 60}}},
        history=[{"step": 1, "mean": 90.0, "many": 90.0}],
    )
    found = Reader(page(less))
    assert "many: the commonest confusions" in found.words
    assert '"label 1" where the truth is "label 0", 1 of 3 rows, 33.3%' in found.words


def test_embeddings_of_one_task_or_none_are_not_compared(toy):
    one = np.ones((1, 4), dtype=np.float32)
    configuration = json.loads((toy.checkpoint / run.CONFIGURATION).read_text())
    (toy.checkpoint / run.CONFIGURATION).write_text(json.dumps({**configuration, "groups": [["likeness"]]}))
    for name, words in ((run.EMBEDDING, "none to be like"), ("other", "has no task embeddings")):
        save_file({name: one}, toy.checkpoint / run.WEIGHTS)
        assert words in Reader(page(toy)).words


def test_alike_is_what_random_vectors_hardly_are(toy):
    said = "No two are more alike than random vectors may be."
    vectors = np.eye(3, 4, dtype=np.float32)
    save_file({run.EMBEDDING: vectors}, toy.checkpoint / run.WEIGHTS)
    assert said in page(toy)
    vectors[0] = vectors[1]
    save_file({run.EMBEDDING: vectors}, toy.checkpoint / run.WEIGHTS)
    assert said not in page(toy)
    assert "and likeness (cosine 1.00)" in page(toy)


def test_answers_that_are_no_numbers_are_said_to_be_none(toy):
    asked = toy.predictions.with_name("words")
    predicted(asked, "likeness", source=list("ab"), truth=[0, 1], answer=["x", "y"], value=[None, None])
    found = Reader(page(replace(toy, tasks={"likeness": toy.tasks["likeness"]}, predictions=asked)))
    assert "None of its answers is a number." in found.words
    assert "All answers are numbers" in found.words


def test_what_is_all_right_and_was_better_before_is_said(toy):
    name = next(iter(toy.tasks))
    asked = toy.predictions.with_name("right")
    predicted(asked, name, source=list("ab"), truth=["NA", ODD], answer=["NA", ODD], probability=[1.0, 1.0])
    history = [{"step": step, "mean": value, name: value} for step, value in ((10, -20.0), (20, 90.0), (30, 70.0))]
    found = Reader(page(replace(toy, tasks={name: toy.tasks[name]}, predictions=asked, history=history)))
    assert "The best validation mean, 90.0, is at step 20 of 30: it was past its best at the end." in found.words
    assert "All its answers are right." in found.words
    assert "On average they are off by 0.0 points" in found.words
    assert "one scale from -20 to 100" in found.words


def test_results_in_markdown_keep_their_columns():
    from hyperformer.report.markup import Strong, Table, markdown

    assert markdown(Table(["a", "b"], [["x|y", Strong("1.0")]])) == "| a | b |\n| --- | --- |\n| x\\|y | **1.0** |\n"


def test_the_pictures_are_files_of_their_own_with_what_the_page_shows(toy, tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    write_pictures(toy, folder)
    odd = next(iter(toy.tasks))
    files = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.svg"))
    assert files == sorted(
        ["scores/tasks", "learning/mean", *(f"learning/{name}" for name in toy.tasks), f"confusion/{odd}",
         f"calibration/{odd}", "numbers/likeness", "embeddings/tasks"]
    )  # fmt: skip
    text = page(toy)
    for path in folder.rglob("*.svg"):
        root = ElementTree.fromstring(path.read_bytes())  # well-formed
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [one for one in root.iter() if one.tag.endswith("script") or "href" in one.attrib]
        if path.parent.name != "confusion":  # which is a table there
            assert f'aria-label="{escape(root.attrib["aria-label"])}"' in text
    counts = ElementTree.parse(folder / "confusion" / f"{odd}.svg").getroot()
    shown = [one.text for one in counts.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in shown if word.isdigit()] == ["1", "1", "0", "2"]
    assert shown[1:4] == ["truth, down; answer, across", "NA", f"{ODD[:13]}…"]
    first = {path.name: path.read_bytes() for path in folder.rglob("*.svg")}
    write_pictures(toy, folder)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.svg")} == first
