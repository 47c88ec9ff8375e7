"""The report of a run: its statistics compared with other implementations, and its page for any data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from html_reader import Reader
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from toys import task_settings

from hyperformer.core.manifest import FORMAT, Manifest
from hyperformer.model.checkpoint import CONFIGURATION, TASK_EMBEDDING, WEIGHTS
from hyperformer.report import Run, list_behind, render_page, render_results, statistics, summarize, write_charts
from hyperformer.report.results import Table, to_markdown
from hyperformer.settings import Tasks
from hyperformer.tasks import make_tasks

ODD = "<script>alert(1)</script> & \"'"
SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}href"
QUESTIONS = [
    "How good are the test scores?",
    "Was training long enough?",
    "Do the tasks have different adapters?",
    "Which mistakes does it make?",
    "Are its probabilities calibrated?",
    "Which tasks have similar embeddings?",
    "How large is it?",
    "Do the exported graphs match the model?",
    "Which inputs was it created from?",
]


def write_predictions(folder: Path, task: str, **columns: list[object]) -> None:
    (folder / task).mkdir(parents=True)
    pd.DataFrame(columns).to_csv(folder / task / "test.csv", index=False)


def write_bundle(folder: Path, task: str, method: str, parity: dict[str, float], openvino: dict[str, float]) -> None:
    (folder / task).mkdir(parents=True)
    for name, size in (("model.onnx", 2_000_000), ("tokenizer.json", 300_000)):
        (folder / task / name).write_bytes(b"0" * size)
    Manifest(
        format=FORMAT, task=task, kind="classification", text="{a}", missing=None, labels=[], numbers=None,
        max_source_tokens=8,
        opset=18, backbone="b", method=method, files={"model.onnx": f"graph of {task}", "tokenizer.json": "tokenizer"},
        parity={"rows": 20, "ties": 1, "largest_difference": 2e-5, **parity}, int8={}, openvino=openvino, metrics={},
        baselines={}, published=True,
        made_from={"code": "the same code", "data": f"data of {task}"},
    ).write(folder / task)  # fmt: skip


def measure(share: float) -> dict[str, float]:
    """Return the measures of a validation, with this task-specific share of the adapters."""
    sizes = {"gradient/layer_norms": 0.25, "update/layer_norms": 0.0125}
    return {"task_share": share, "input_cosine": 0.125, **sizes}


@pytest.fixture
def toy(tmp_path) -> Run:
    """Return a run of classification (with markup in its texts), regression, and generation (without export)."""
    settings = task_settings()
    mood = {**settings["mood"], "labels": {0: "NA", 1: ODD}}
    write = {"text": "{a}", "kind": "generation", "label_column": "b", "metrics": ["exact_match"]}
    tasks = make_tasks(Tasks({f"mood {ODD}".replace("/", ""): mood, "likeness": settings["likeness"], "write": write}))
    folder = tmp_path / "predictions"
    folder.mkdir()
    odd = next(iter(tasks))
    write_predictions(
        folder, odd, source=[f"{ODD} {n}" for n in range(4)], truth=["NA", "NA", ODD, ODD],
        answer=["NA", ODD, ODD, ODD], probability=[0.95, 0.85, 0.85, 0.6],
    )  # fmt: skip
    write_predictions(
        folder, "likeness", source=list("abcd"), truth=[0, 1, 3, 3], answer=[0, 1, 3, 2],
        probability=[0.9, 0.8, 0.7, 0.6], value=[0.25, 1.0, 2.5, None],
    )  # fmt: skip
    write_predictions(folder, "write", source=list("abcd"), truth=list("abcd"), answer=["a", "", "c", ODD])
    bundles = tmp_path / "bundles"
    openvino = {"metric": 80.5, "float32": 81.0, "rows": 200, "changed": 3, "ties": 1, "bf16": 1.0, "published": 1.0}
    write_bundle(bundles, odd, ODD, {"beyond": 2}, openvino)
    write_bundle(bundles, "likeness", ODD, {}, {})
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    configuration = {
        "backbone": {"path": str(tmp_path / "some" / "backbone"), "revision": None, "sha256": "0123"},
        "method": ODD, "methods": {ODD: {"task_embedding_dim": 4}}, "groups": [list(tasks)],
    }  # fmt: skip
    (checkpoint / CONFIGURATION).write_text(json.dumps(configuration))
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    save_file({TASK_EMBEDDING: vectors, "other": vectors}, checkpoint / WEIGHTS)
    metrics = {name: {"mean": 60.0 + index, "accuracy": 60.0 + index} for index, name in enumerate(tasks)}
    baselines = {name: {kind: {"mean": 30.0} for kind in ("majority", "tfidf", "frozen")} for name in tasks}
    baselines = {"test": baselines, "notes": {name: {} for name in tasks}}
    counts = {"backbone": 1000, "added": 50, "trained": 60, "total_ratio": 1.05, "trained_percent_per_task": 2.0}
    history = [
        {"step": step, "mean": step / 2, **dict.fromkeys(tasks, step / 2), "diagnostics": measure(step / 200)}
        for step in (50, 100)
    ]
    return Run(
        tasks, {"test": metrics}, baselines, {name: {"test": {"rows": 4}} for name in tasks}, counts, history, bundles,
        folder, checkpoint, 7, 1e-4,
    )  # fmt: skip


def test_confusion_is_sklearns_and_other_answers_come_last():
    generator = np.random.default_rng(1)
    labels = ["c", "a", "b"]
    truths, answers = (generator.choice(labels, 50).tolist() for _ in range(2))
    matrix = statistics.build_confusion_matrix([*truths, "a"], [*answers, "odd"], labels)
    assert matrix.counts[:, :3].tolist() == confusion_matrix(truths, answers, labels=labels).tolist()
    assert matrix.counts[:, 3].tolist() == [0, 1, 0]
    assert matrix.answers == (*labels, statistics.NO_LABEL)
    assert statistics.build_confusion_matrix(truths, answers, labels).answers == tuple(labels)


def test_confusions_are_ordered_by_their_number_of_rows():
    matrix = statistics.build_confusion_matrix(list("aaaabbb"), list("abccabb"), ["a", "b", "c"])
    assert [(item.truth, item.answer, item.rows, item.total) for item in matrix.confusions] == [
        ("a", "c", 2, 4), ("a", "b", 1, 4), ("b", "a", 1, 3),
    ]  # fmt: skip
    assert matrix.shares[2].tolist() == [0.0, 0.0, 0.0]  # no row has this label


def test_calibration_matches_values_computed_by_hand():
    right = np.array([True, True, False, False, True])
    calibration = statistics.measure_calibration(np.array([0.95, 0.85, 0.9, 0.6, 1.0]), right)
    assert calibration.rows.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 2]  # an edge belongs to the bin below
    assert calibration.probability[[5, 8, 9]].tolist() == pytest.approx([0.6, 0.875, 0.975])
    assert calibration.right[[5, 8, 9]].tolist() == [0.0, 0.5, 1.0]
    assert calibration.error == pytest.approx((0.6 + 2 * 0.375 + 2 * 0.025) / 5)
    assert (calibration.mean_probability, calibration.accuracy) == pytest.approx((0.86, 0.6))


def test_true_probabilities_have_the_calibration_error_that_chance_predicts():
    generator = np.random.default_rng(2)
    probabilities = generator.uniform(0.5, 1.0, 600)

    def measure(right):
        return statistics.measure_calibration(probabilities, right)

    errors = [measure(generator.uniform(size=600) < probabilities).error for _ in range(300)]
    assert np.mean(errors) == pytest.approx(measure(probabilities > 0).chance, rel=0.1)


def test_components_are_sklearns_with_positive_largest_coordinates():
    vectors = np.random.default_rng(3).normal(size=(6, 8))
    points, shares = statistics.project_to_principal_components(vectors)
    fitted = PCA(2).fit(vectors)
    assert np.abs(points) == pytest.approx(np.abs(fitted.transform(vectors)))
    assert shares == pytest.approx(fitted.explained_variance_ratio_)
    assert np.take_along_axis(points, np.abs(points).argmax(0)[None], 0).min() > 0
    assert statistics.project_to_principal_components(-vectors[::-1])[1] == pytest.approx(shares)


def test_two_alike_or_thin_embeddings_have_a_map():
    points, shares = statistics.project_to_principal_components(np.ones((2, 1)))
    assert points.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert shares.tolist() == [0.0, 0.0]


def test_predictions_are_read_as_they_are(toy):
    odd = toy.read_predictions(next(iter(toy.tasks)))
    assert odd["truth"].tolist() == ["NA", "NA", ODD, ODD]
    assert odd["probability"].dtype == np.float64
    assert toy.read_predictions("write")["answer"].tolist() == ["a", "", "c", ODD]


def test_predicted_numbers_are_summarized_by_true_number(toy):
    task = toy.tasks["likeness"]
    table = toy.read_predictions("likeness")
    groups = statistics.group_by_truth(table, task.answers, task.numbers)
    assert [(group.truth, group.rows, group.mean, *group.percentiles) for group in groups] == [
        (0.0, 1, 0.25, *[0.25] * 5), (1.0, 1, 1.0, *[1.0] * 5), (3.0, 1, 2.5, *[2.5] * 5),
    ]  # fmt: skip


def test_the_worst_predictions_are_the_most_probable_wrong_ones_or_the_farthest_off(toy):
    numbers = dict(zip(toy.tasks["likeness"].answers, toy.tasks["likeness"].numbers, strict=True))
    table = toy.read_predictions("likeness")
    assert statistics.select_worst(table, numbers, 3)["source"].tolist() == [
        "d",
        "c",
        "a",
    ]  # an answer without a number comes first
    table = pd.DataFrame({"truth": list("aaa"), "answer": list("abc"), "probability": [1.0, 0.5, 0.7]})
    assert statistics.select_worst(table, None, 5)["answer"].tolist() == ["c", "b"]


def test_the_mean_over_tasks_has_the_standard_error_of_independent_tasks(toy):
    summary = summarize(toy)
    assert summary.mean.model == pytest.approx(61.0)
    assert summary.mean.error == pytest.approx(sum(score.error**2 for score in summary.scores) ** 0.5 / 3)


def test_task_embeddings_are_task_specific_tensors_of_a_method():
    from hyperformer.methods.hyperformer.hypernetworks import HypernetworkMethod

    assert TASK_EMBEDDING.removeprefix("method.") in HypernetworkMethod.task_specific


def test_the_page_asks_and_answers_every_question(toy):
    html = render_page(summarize(toy))
    page = Reader(html)
    assert [text for tag, text in page.headings if tag == "h2"] == QUESTIONS
    assert [tag for tag, _ in page.headings][:2] == ["h1", "h2"]
    assert html.count('<p class="answer">') == len(QUESTIONS)
    assert "{{" not in html
    assert "The mean test score is 61.0" in page.text
    assert "at step 100 of 100, the last step" in page.text
    assert f'The most frequent confusion: "NA" predicted as "{ODD}" in 1 of 2 rows, 50.0%' in page.text
    assert f"expected calibration error over {statistics.BINS} bins" in page.text
    assert "The largest bundle is 2.3 MB." in page.text
    assert "Graph and model give the same answer on 38 of 40 validation rows; 2 are ties." in page.text
    assert "trained with seed 7" in page.text
    assert all(f"data of {name}" in page.text for name in toy.read_manifests())
    assert page.text.count("the same code") == 1


def test_the_page_says_whether_the_tasks_have_different_adapters(toy):
    def read(*measures):
        lines = [{**line, "diagnostics": m} for line, m in zip(toy.history[-len(measures) :], measures, strict=True)]
        return " ".join(Reader(render_page(summarize(replace(toy, history=lines)))).text.split())

    text = read(measure(0.25), measure(0.5))
    assert "Yes: 50% of the adapters is task-specific." in text
    assert "cosine between tasks of the generators' inputs" in text
    assert re.search(r"layer norms\s*2.50e-01\s*1.25e-02", text)
    assert "offsets" not in text
    few = read(measure(0.0125))
    assert "No: 1.2% of the adapters is task-specific, so all tasks have nearly the same adapter." in few
    assert "has no task-specific adapters" in read({"gradient/backbone": 1.0, "update/backbone": 0.1})
    assert "Training recorded no measures of the weights." in read({})


def test_the_page_notes_the_area_under_the_curve(toy):
    name = next(iter(toy.tasks))
    toy.metrics["test"][name]["auc"] = 53.125
    assert f"{name}, model: the area under the ROC curve is 53.1 (chance: 50)." in render_results(summarize(toy))


def test_the_page_loads_nothing_and_is_accessible(toy):
    page = Reader(render_page(summarize(toy)))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object"}
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("href", "src")]
    assert all(value == "data:," or value.startswith("#q") for value in links)
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert dict(page.tags)["html"]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and "viewbox" in attributes]
    assert len(charts) > 5
    assert all("aria-hidden" in chart or (chart["role"] == "img" and chart["aria-label"]) for chart in charts)
    boxes = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert all(box["tabindex"] == "0" and box["role"] == "group" and box["aria-label"] for box in boxes)


def test_markup_in_texts_is_escaped(toy):
    html = render_page(summarize(toy))
    assert "<script" not in html
    assert Reader(html).text.count(ODD) > 5


def test_the_same_run_gives_the_same_bytes_in_any_folder(toy, tmp_path):
    html, results = render_page(summarize(toy)), render_results(summarize(toy))
    assert render_page(summarize(toy)) == html
    moved = {name: getattr(toy, name).rename(tmp_path / f"other {name}") for name in ("bundles", "predictions")}
    other = replace(toy, **moved)
    assert (render_page(summarize(other)), render_results(summarize(other))) == (html, results)
    assert str(tmp_path) not in html


def test_sections_without_data_say_so(toy):
    (toy.checkpoint / WEIGHTS).unlink()
    name = next(iter(toy.tasks))
    folder = toy.predictions.with_name("generated")
    write_predictions(folder, name, source=list("ab"), truth=["NA", ODD], answer=["NA", "odd"])
    less = replace(toy, tasks={name: toy.tasks[name]}, history=[], bundles=toy.bundles / "none", predictions=folder)
    page = Reader(render_page(summarize(less)))
    for text in (
        "Training recorded no validation scores",
        "not a label",
        "There are no probabilities",
        "has no task embeddings",
        "No task of this run was exported",
        "on 1 task",
    ):
        assert text in page.text


def test_a_baseline_that_is_left_out_has_no_score_and_a_note(toy, tmp_path):
    notes = {"tfidf": "left out, because no word occurs", "overlap": "left out", "train": f"a sample {ODD}"}
    scores = {**toy.baselines["test"], "likeness": {"majority": {"mean": 20.0}, "frozen": {"mean": 90.0}}}
    baselines = {"test": scores, "notes": {"likeness": notes}}
    summary = summarize(replace(toy, baselines=baselines))
    assert summary.scores[1].baselines == {"majority": 20.0, "frozen": 90.0}
    assert dict(summary.mean.baselines) == pytest.approx({"majority": 80 / 3, "frozen": 50.0})
    assert [score.name for score in summary.behind] == ["likeness"]
    page, results = Reader(render_page(summary)).text, render_results(summary)
    for sentence in (
        "likeness, TF-IDF: left out, because no word occurs.",
        "likeness, TF-IDF + overlap: left out.",
        f"likeness, train: a sample {ODD}.",
    ):
        assert sentence in page
        assert f"\n- {sentence}\n" in results
    assert "| 20.0 | left out | left out | **90.0** |" in results
    assert "| 26.7 | left out | left out | 50.0 |" in results
    write_charts(summary, tmp_path)
    assert "Notes on the baselines" not in Reader(render_page(summarize(toy))).text


def test_the_overlap_of_a_task_with_one_text_is_left_out_with_its_words(toy):
    notes = {"tfidf": "left out, because no word occurs", "frozen": "left out"}
    scores = {name: {"majority": {"mean": 30.0}} for name in toy.tasks}
    only = {"test": scores, "notes": dict.fromkeys(toy.tasks, notes)}
    summary = summarize(replace(toy, baselines=only))
    assert all(dict(score.baselines) == {"majority": 30.0} for score in (*summary.scores, summary.mean))
    assert "the best baseline, majority, reaches 30.0" in " ".join(Reader(render_page(summary)).text.split())


@pytest.mark.parametrize(
    ("model", "row"),
    [
        (90.1, "**90.1** | 4.0 | 20.0 | 90.0 | 90.0 | 30.0 |"),
        (90.0, "90.0 | 4.1 | 20.0 | **90.0** | 90.0 | 30.0 |"),  # an equal score does not beat a baseline
        (40.0, "40.0 | 42.0 | 20.0 | **90.0** | 90.0 | 30.0 |"),
    ],
)
def test_the_better_of_model_and_best_baseline_is_bold_and_a_task_behind_is_named(toy, model, row):
    name = "likeness"
    scores = {"majority": {"mean": 20.0}, "tfidf": {"mean": 90.0}, "frozen": {"mean": 30.0}}
    summary = summarize(
        replace(
            toy,
            metrics={"test": {**toy.metrics["test"], name: {"mean": model}}},
            baselines={"test": {**toy.baselines["test"], name: scores}},
        )
    )
    results, page = render_results(summary), render_page(summary)
    line = next(line for line in results.splitlines() if line.startswith(f"| {name} |"))
    entries, expected = ([entry.strip() for entry in text.split("|")] for text in (line, row))
    assert [entries[4], *entries[6:10]] == [expected[0], *expected[2:6]]
    sentence = f"{name}: the model ({model:.1f}) does not beat the best baseline, TF-IDF (90.0)."
    behind = model <= 90.0
    assert (f"\n- {sentence}\n" in results) == (sentence in Reader(page).text) == behind
    assert list_behind(summary) == ([sentence] if behind else [])
    assert (f"<td><strong>{max(model, 90.0):.1f}</strong></td>" in page) is True


def test_the_report_names_its_labels_as_the_bundles_do(toy, tmp_path):
    odd = next(iter(toy.tasks))
    renamed = replace(toy, label_names={odd: {"NA": "unknown", ODD: "known"}})
    html = render_page(summarize(renamed))
    assert 'The most frequent confusion: "unknown" predicted as "known" in 1 of 2 rows' in Reader(html).text
    assert "<dt>expected</dt><dd>unknown</dd>\n<dt>predicted</dt><dd>known (85.0%)</dd>" in html
    write_charts(summarize(renamed), tmp_path)
    assert {"unknown", "known"} <= set(read_texts(tmp_path / "confusion" / f"{odd}.svg"))


def test_a_prediction_that_happens_to_be_a_new_label_name_stays_wrong(toy):
    odd = next(iter(toy.tasks))
    folder = toy.predictions.with_name("generated")
    write_predictions(folder, odd, source=list("ab"), truth=["NA", ODD], answer=["known", ODD])
    less = replace(toy, tasks={odd: toy.tasks[odd]}, predictions=folder, label_names={odd: {"NA": "known"}})
    (predictions,) = summarize(less).predictions
    assert predictions.error_rate == 0.5
    assert predictions.matrix.counts.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert predictions.matrix.answers == ("known", ODD, statistics.NO_LABEL)


def test_the_length_of_the_training_is_shown_if_the_checkpoint_records_it(toy):
    assert "The checkpoint comes from" not in Reader(render_page(summarize(toy))).text
    file = toy.checkpoint / CONFIGURATION
    training = {"steps": 120, "threads": 2, "passes": {"likeness": 3.25, "write": 12.0}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "training": training}))
    for history in (toy.history, []):
        html = " ".join(render_page(summarize(replace(toy, history=history))).split())
        assert "The checkpoint comes from a training of 120 steps on 2 threads." in html
        assert re.search('likeness</th> ?<td>3.2</td></tr> ?<tr><th scope="row">write</th> ?<td>12.0</td>', html)


def test_many_labels_are_shown_by_their_most_frequent_confusions(toy):
    labels = {number: f"label {number}" for number in range(20)}
    task = make_tasks(Tasks({"many": {**task_settings()["mood"], "labels": labels}}))["many"]
    truths = [*labels.values()] * 3
    write_predictions(toy.predictions, "many", source=truths, truth=truths, answer=[truths[1], *truths[1:]])
    less = replace(
        toy,
        tasks={"many": task},
        metrics={"test": {"many": {"mean": 98.0}}},
        baselines={"test": {"many": toy.baselines["test"]["write"]}},
        counts={"many": {"test": {"rows": 60}}},
        history=[{"step": 1, "mean": 90.0, "many": 90.0}],
    )
    page = Reader(render_page(summarize(less)))
    assert "many: most frequent confusions" in page.text
    assert '"label 0" predicted as "label 1" in 1 of 3 rows, 33.3%' in page.text


def test_embeddings_of_one_task_or_none_are_not_compared(toy):
    vectors = np.ones((1, 4), dtype=np.float32)
    configuration = json.loads((toy.checkpoint / CONFIGURATION).read_text())
    (toy.checkpoint / CONFIGURATION).write_text(json.dumps({**configuration, "groups": [["likeness"]]}))
    for name, text in ((TASK_EMBEDDING, "there is nothing to compare"), ("other", "has no task embeddings")):
        save_file({name: vectors}, toy.checkpoint / WEIGHTS)
        assert text in Reader(render_page(summarize(toy))).text


def test_similarity_that_random_vectors_reach_is_marked(toy):
    caveat = "No pair is more similar than random vectors can be."
    vectors = np.eye(3, 4, dtype=np.float32)
    save_file({TASK_EMBEDDING: vectors}, toy.checkpoint / WEIGHTS)
    assert caveat in Reader(render_page(summarize(toy))).text
    vectors[0] = vectors[1]
    save_file({TASK_EMBEDDING: vectors}, toy.checkpoint / WEIGHTS)
    page = Reader(render_page(summarize(toy)))
    assert caveat not in page.text
    assert "and likeness (cosine 1.00)" in page.text


def test_a_regression_without_predicted_numbers_says_so(toy):
    folder = toy.predictions.with_name("texts")
    write_predictions(folder, "likeness", source=list("ab"), truth=[0, 1], answer=["x", "y"], value=[None, None])
    page = Reader(render_page(summarize(replace(toy, tasks={"likeness": toy.tasks["likeness"]}, predictions=folder))))
    assert "No prediction is a number." in page.text
    assert "All tasks are regression tasks" in page.text


def test_perfect_predictions_and_an_earlier_best_score_are_reported(toy):
    name = next(iter(toy.tasks))
    folder = toy.predictions.with_name("right")
    write_predictions(folder, name, source=list("ab"), truth=["NA", ODD], answer=["NA", ODD], probability=[1.0, 1.0])
    history = [{"step": step, "mean": value, name: value} for step, value in ((10, -20.0), (20, 90.0), (30, 70.0))]
    right = replace(toy, tasks={name: toy.tasks[name]}, predictions=folder, history=history)
    page = Reader(render_page(summarize(right)))
    assert "The best mean validation score is 90.0, at step 20 of 30; later steps did not improve it." in page.text
    assert "All predictions are correct." in page.text
    assert "The mean calibration error is 0.0 points" in page.text
    assert "one scale from -20 to 100" in page.text


def test_results_in_markdown_keep_their_columns():
    table = Table(["a", "b"], [["x|y", "1.0"], ["z", "2.0"]], bold=[1, 0])
    assert to_markdown(table) == "| a | b |\n| --- | --- |\n| x\\|y | **1.0** |\n| **z** | 2.0 |\n"


def test_charts_are_self_contained_files_with_the_content_of_the_page(toy, tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    summary = summarize(toy)
    write_charts(summary, folder)
    odd = next(iter(toy.tasks))
    files = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.svg"))
    assert files == sorted(
        ["scores/tasks", "learning/mean", *(f"learning/{name}" for name in toy.tasks), f"confusion/{odd}",
         f"calibration/{odd}", "numbers/likeness", "embeddings/tasks"]
    )  # fmt: skip
    labels = {attributes.get("aria-label") for _, attributes in Reader(render_page(summary)).tags}
    for path in folder.rglob("*.svg"):
        root = ElementTree.fromstring(path.read_bytes())  # well-formed
        assert (root.tag, root.attrib["role"]) == (f"{SVG}svg", "img")
        assert not [node for node in root.iter() if node.tag.endswith("script") or "href" in node.attrib]
        links = [node.attrib[XLINK] for node in root.iter() if XLINK in node.attrib]
        assert {link.removeprefix("#") for link in links} <= {node.attrib.get("id") for node in root.iter()}
        if path.parent.name != "confusion":  # a table on the page
            assert root.attrib["aria-label"] in labels
    texts = read_texts(folder / "confusion" / f"{odd}.svg")
    assert [text for text in texts if text.isdigit()] == ["1", "1", "0", "2"]
    assert {"rows: true label; columns: prediction", "NA", f"{ODD[:13]}…"} <= set(texts)
    first = {path.name: path.read_bytes() for path in folder.rglob("*.svg")}
    write_charts(summary, folder)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.svg")} == first


def read_texts(file: Path) -> list[str]:
    """Return the texts of an SVG file."""
    return [node.text for node in ElementTree.parse(file).getroot().iter(f"{SVG}text")]


def test_colours_of_charts_follow_light_and_dark_mode(toy, tmp_path):
    write_charts(summarize(toy), tmp_path)
    for path in [*tmp_path.glob("scores/*.svg"), *tmp_path.glob("learning/*.svg")]:
        styles = [node.attrib.get("style", "") for node in ElementTree.parse(path).getroot().iter()]
        assert not [style for style in styles if "#" in style]
        assert "prefers-color-scheme: dark" in path.read_text()


def test_any_label_can_be_drawn(toy, tmp_path):
    labels = ["$x_1$ \\frac", "_hidden", "正面", "two\n lines", "bell \x07"]
    task = make_tasks(Tasks({"signs": {**task_settings()["mood"], "labels": dict(enumerate(labels))}}))["signs"]
    write_predictions(toy.predictions, "signs", source=labels, truth=labels, answer=labels)
    less = replace(
        toy,
        tasks={"signs": task},
        metrics={"test": {"signs": {"mean": 98.0}}},
        baselines={"test": {"signs": toy.baselines["test"]["write"]}},
        counts={"signs": {"test": {"rows": 5}}},
        history=[],
    )
    write_charts(summarize(less), tmp_path)
    texts = read_texts(tmp_path / "confusion" / "signs.svg")
    for text in ("$x_1$ \\frac", "_hidden", "正面", "two lines", "bell \ufffd"):
        assert texts.count(text) == 2


def test_names_of_equal_embeddings_do_not_overlap(toy, tmp_path):
    save_file({TASK_EMBEDDING: np.ones((3, 4), dtype=np.float32)}, toy.checkpoint / WEIGHTS)
    write_charts(summarize(toy), tmp_path)
    root = ElementTree.parse(tmp_path / "embeddings" / "tasks.svg").getroot()
    names = [
        node for node in root.iter(f"{SVG}text") if "bold" in node.attrib["style"] or "700" in node.attrib["style"]
    ]
    assert len({(node.attrib["x"], node.attrib["y"]) for node in names}) == 3


def test_openvino_is_compared_for_the_tasks_whose_export_ran_it(toy):
    table = render_page(summarize(toy)).partition("OpenVINO compared with onnxruntime")[2].partition("</table>")[0]
    assert table.count("<tr>") == 2  # the header and one task
    row = table.rpartition("<tr>")[2]
    assert re.findall("<td>(.*?)</td>", row) == ["bf16", "81.00", "80.50", "200", "3", "1", "yes"]
