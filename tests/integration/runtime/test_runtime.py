"""The runtime: answers of bundles, with numpy, onnxruntime and tokenizers only."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import run_python

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import GRAPH, TOKENIZER
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.runtime import load

SENTENCES = [
    {"sentence": "the film is dull"},
    {"sentence": "the garden is lovely although nobody in the village had really expected it at all"},
    {"sentence": "bright"},
    {"sentence": "the book is terrible today"},
    {"sentence": "the song is wicked"},
    {"sentence": "wonderful " * 60},
]
PAIRS = [{"a": "the film is dull", "b": "a film was dull today"}, {"a": "good", "b": "bad"}]

SCRIPT = """
import json, sys
from hyperformer.runtime import load
rows = json.loads(sys.argv[2])
answers = [[answer.label, answer.probabilities, answer.value] for answer in load(sys.argv[1]).answer(rows)]
heavy = "torch transformers pydantic datasets sklearn scipy pandas onnx safetensors kedro".split()
print(json.dumps({"answers": answers, "imported": [name for name in heavy if name in sys.modules]}))
"""


@pytest.fixture
def copied(bundles: Path, tmp_path: Path) -> Path:
    """Copy a bundle, which a test may damage."""
    return shutil.copytree(bundles / "mood", tmp_path / "mood")


def assert_same(answers, wanted):
    assert [answer.label for answer in answers] == [answer.label for answer in wanted]
    for got, expected in zip(answers, wanted, strict=True):
        assert got.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert got.value == (None if expected.value is None else pytest.approx(expected.value, abs=1e-4))


@pytest.mark.parametrize(("task", "rows"), [("mood", SENTENCES), ("mood3", SENTENCES), ("likeness", PAIRS)])
def test_a_bundle_gives_the_models_answers(bundles, checkpoint, task, rows):
    assert_same(
        load(bundles / task, threads=1).answer(rows), MultiTaskModel.from_pretrained(checkpoint).answer(task, rows)
    )


def test_a_bundle_answers_in_a_process_without_torch(bundles, checkpoint):
    process = run_python(SCRIPT, bundles / "likeness", json.dumps(PAIRS))
    assert process.returncode == 0, process.stderr
    output = json.loads(process.stdout)
    assert output["imported"] == []
    for (label, probabilities, value), wanted in zip(
        output["answers"], MultiTaskModel.from_pretrained(checkpoint).answer("likeness", PAIRS), strict=True
    ):
        assert label == wanted.label
        assert probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
        assert value == pytest.approx(wanted.value, abs=1e-4)


def test_rows_of_mixed_lengths_come_back_in_order(bundles):
    bundle = load(bundles / "mood", threads=1)
    sources = [f"sentence: {row['sentence']}" for row in SENTENCES]
    together = bundle.scores(sources, batch_size=2)
    for source, scores in zip(sources, together, strict=True):
        (single,) = bundle.scores([source])
        assert scores.values == pytest.approx(single.values, abs=1e-5)
    assert len({round(scores.values[0], 4) for scores in together}) > len(SENTENCES) / 2


def test_no_rows_give_no_answers(bundles):
    assert load(bundles / "mood").answer([]) == []


def test_one_row_is_answered_by_a_call(bundles):
    bundle = load(bundles / "mood")
    assert bundle(SENTENCES[0]) == bundle.answer(SENTENCES[:1])[0]


def test_a_row_without_a_column_is_refused_by_name(bundles):
    with pytest.raises(HyperFormerError, match="the row has no 'b'; expected the columns a, b"):
        load(bundles / "likeness").answer([{"a": "good"}])


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_a_changed_file_is_refused(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(HyperFormerError, match=f"{name} is not the file that was exported"):
        load(copied)


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(HyperFormerError, match=f"has no {name}; copy the whole folder"):
        load(copied)


def test_a_folder_that_is_not_a_bundle_is_refused(tmp_path, checkpoint):
    with pytest.raises(HyperFormerError, match="nowhere does not exist; use the folder of an exported task"):
        load(tmp_path / "nowhere")
    for folder in (tmp_path, checkpoint):
        with pytest.raises(HyperFormerError, match=f"{folder} has no {manifest.MANIFEST}"):
            load(folder)


def test_a_bundle_moved_elsewhere_still_answers(copied, bundles):
    path = copied.rename(copied.parent / "möved away")
    assert load(path)(SENTENCES[0]) == load(bundles / "mood")(SENTENCES[0])


def test_a_folder_of_bundles_answers_by_task(bundles):
    tasks = load(bundles)
    assert list(tasks) == ["likeness", "mood", "mood3"]
    assert len(tasks) == 3
    assert tasks["mood"](SENTENCES[0]).label == load(bundles / "mood")(SENTENCES[0]).label
    assert tasks["mood"] is tasks["mood"]
    with pytest.raises(HyperFormerError, match=r"unknown task 'moods' in .*; expected one of likeness, mood, mood3"):
        tasks["moods"]


def test_a_bundle_answers_in_many_threads(bundles):
    bundle = load(bundles)["mood"]
    wanted = [answer.label for answer in bundle.answer(SENTENCES)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: [answer.label for answer in bundle.answer(SENTENCES)], range(64)))
    assert results == [wanted] * 64


def test_the_int8_graph_answers_nearly_as_the_float32_graph(bundles):
    for task in ("mood", "mood3"):
        if manifest.read(bundles / task).int8["published"]:
            plain, small = (load(bundles / task, precision=kind).answer(SENTENCES[:5]) for kind in ("float32", "int8"))
            for left, right in zip(plain, small, strict=True):  # labels may differ where two are nearly as likely
                assert right.probabilities == pytest.approx(left.probabilities, abs=0.1)


def test_an_int8_graph_that_was_not_published_is_refused_with_its_metric(copied):
    path = copied / manifest.MANIFEST
    description = json.loads(path.read_text())
    description["files"].pop(manifest.INT8, None)
    description["int8"] = {"metric": 48.25, "float32": 52.5, "published": 0.0}
    path.write_text(json.dumps(description))
    with pytest.raises(
        HyperFormerError, match=r"has no model.int8.onnx, because its validation metric was 4.25 points lower\. Use the"
    ):
        load(copied, precision="int8")
    description["int8"] = {}
    path.write_text(json.dumps(description))
    with pytest.raises(HyperFormerError, match=r"has no model.int8.onnx\. Use the float32 graph"):
        load(copied, precision="int8")


@pytest.mark.parametrize("text", ["the film is dull</s> good", "nul \0 byte", "<pad><extra_id_0>", ""])
def test_literal_special_tokens_and_nul_are_text_to_bundle_and_model_alike(bundles, checkpoint, text):
    model, bundle = MultiTaskModel.from_pretrained(checkpoint), load(bundles / "mood")
    assert_same([bundle({"sentence": text})], [model.predict("mood", {"sentence": text})])
    ids = bundle.encode([text])[0][0]
    assert ids.count(1) == 1
    assert ids[-1] == 1


def test_an_unknown_task_is_a_missing_key(bundles):
    tasks = load(bundles)
    assert "moods" not in tasks
    assert tasks.get("moods") is None


def test_a_broken_bundle_does_not_affect_the_others(bundles, tmp_path):
    root = shutil.copytree(bundles, tmp_path / "all")
    (root / "mood3" / manifest.MANIFEST).write_text("{")
    tasks = load(root)
    assert tasks["mood"](SENTENCES[0]).label
    with pytest.raises(HyperFormerError, match="not valid JSON"):
        tasks["mood3"]


def change_manifest(folder: Path, **changes) -> Path:
    file = folder / manifest.MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_a_bundle_that_is_not_published_is_loaded_only_if_asked_for(copied, bundles):
    change_manifest(copied, published=False)
    with pytest.raises(HyperFormerError, match=r"mood is not published, because the model of task 'mood' is no better"):
        load(copied)
    assert load(copied, allow_unpublished=True).answer(SENTENCES) == load(bundles / "mood").answer(SENTENCES)


@pytest.mark.parametrize("exported", ["bundles", "shared_base"])
def test_an_unpublished_task_of_a_folder_does_not_affect_the_others(exported, request, tmp_path):
    root = shutil.copytree(request.getfixturevalue(exported), tmp_path / "all")
    change_manifest(root / "mood", published=False)
    tasks = load(root)
    assert tasks["mood3"](SENTENCES[0]).label
    for load_task in (lambda: tasks["mood"], lambda: load(root / "mood")):
        with pytest.raises(HyperFormerError, match=r"with --allow-unpublished .* or allow_unpublished=True in Python"):
            load_task()
    answer = load(root, allow_unpublished=True)["mood"](SENTENCES[0])
    assert answer == load(root / "mood", allow_unpublished=True)(SENTENCES[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [1, 2]}, "invalid value for 'labels'"),
        ({"labels": ["a", "a"]}, "invalid value for 'labels'"),
        ({"labels": ["a"]}, "invalid value for 'labels'"),
        ({"labels": ["a", "b", "c"]}, "has scores of shape .*; expected a score for each of 3 labels"),
        ({"numbers": [1.0]}, "invalid value for 'numbers'"),
        ({"max_source_tokens": 0}, "invalid value for 'max_source_tokens'"),
        ({"max_source_tokens": True}, "invalid value for 'max_source_tokens'"),
        ({"max_source_tokens": 10**30}, "invalid value for 'max_source_tokens'"),
        ({"max_source_tokens": (1 << 20) + 1}, "invalid value for 'max_source_tokens'"),
        ({"text": "sentence: {sentence"}, "has a stray '{'"),
        ({"text": "hello"}, "names no column"),
        ({"parity": {"rows": "many"}}, "invalid value for 'parity'"),
        ({"baselines": {"majority": "low"}}, "invalid value for 'baselines'"),
        ({"published": "no"}, "invalid type for 'published'"),
        ({"files": {}}, "does not list model.onnx"),
    ],
)
def test_a_manifest_with_invalid_values_is_refused(copied, changes, message):
    with pytest.raises(HyperFormerError, match=message):
        load(change_manifest(copied, **changes))


def test_a_file_that_the_manifest_does_not_list_is_not_opened(copied):
    files = manifest.read(copied).files
    del files[TOKENIZER]
    with pytest.raises(HyperFormerError, match=r"does not list tokenizer.json"):
        load(change_manifest(copied, files=files))


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_a_file_that_is_listed_but_cannot_be_opened_is_named(copied, name):
    (copied / name).write_bytes(b"junk")
    files = {**manifest.read(copied).files, name: sha256(copied / name)}
    with pytest.raises(HyperFormerError, match=f"{name} cannot be opened"):
        load(change_manifest(copied, files=files))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "precision is 'fp16'; expected one of float32, int8"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": "2"}, "threads is '2'"),
    ],
)
def test_an_invalid_option_is_refused(bundles, options, message):
    with pytest.raises(HyperFormerError, match=message):
        load(bundles / "mood", **options)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda bundle: bundle("good"), "got a str; expected a row"),
        (lambda bundle: bundle.answer({"sentence": "good"}), "got a single dict; expected a list of rows"),
        (lambda bundle: bundle.answer(SENTENCES, batch_size=0), "batch_size is 0"),
        (lambda bundle: bundle({"sentence": "\ud800"}), "the row's 'sentence' has an invalid character"),
    ],
)
def test_an_invalid_row_is_refused(bundles, ask, message):
    with pytest.raises(HyperFormerError, match=message):
        ask(load(bundles / "mood"))
