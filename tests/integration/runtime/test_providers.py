"""Providers: the same graph run by onnxruntime and by OpenVINO, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import onnx
import onnxruntime
import pytest
from processes import run_python
from toys import task_settings

from hyperformer import evaluation
from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer
from hyperformer.data.storage import read_rows
from hyperformer.export import openvino
from hyperformer.export.target import hash_files
from hyperformer.runtime import Bundles, load, sessions
from hyperformer.runtime.variants import count_changes
from hyperformer.settings import Tasks
from hyperformer.tasks import make_tasks

ROWS = [{"sentence": text} for text in ("the film is dull", "bright", "a lovely garden although nobody knew", "")]
PAIRS = [{"a": "the film is dull", "b": "a film was dull today"}, {"a": "good", "b": "bad"}]


@pytest.fixture
def in_float32(monkeypatch):
    """Let OpenVINO compute in float32 on every CPU."""
    monkeypatch.setattr(sessions, "choose_openvino_precision", lambda core: "f32")


@pytest.mark.parametrize(("task", "rows"), [("mood", ROWS), ("mood3", ROWS), ("likeness", PAIRS)])
def test_openvino_in_float32_gives_onnxruntimes_answers(bundles, task, rows, in_float32):
    expected = load(bundles / task).answer(rows)
    for got, wanted in zip(load(bundles / task, 1, provider="openvino").answer(rows), expected, strict=True):
        assert got.label == wanted.label
        assert got.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
        assert got.value == (None if wanted.value is None else pytest.approx(wanted.value, abs=1e-4))


def test_openvino_in_its_default_precision_gives_nearly_the_same_probabilities(bundles):
    answers = (load(bundles / "mood", provider=provider).answer(ROWS) for provider in ("cpu", "openvino"))
    for wanted, got in zip(*answers, strict=True):
        assert got.probabilities == pytest.approx(wanted.probabilities, abs=0.05)


def test_threads_share_an_openvino_bundle(bundles):
    bundle = load(bundles / "mood", provider="openvino")
    wanted = bundle.answer(ROWS)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: bundle.answer(ROWS), range(64))) == [wanted] * 64


def test_openvino_reads_constants_in_a_file_of_their_own(bundles, tmp_path, in_float32):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    model = onnx.load(folder / manifest.GRAPH)
    onnx.save(model, folder / manifest.GRAPH, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    dataclasses.replace(manifest.read(folder), files=hash_files(folder)).write(folder)
    for wanted, got in zip(
        load(bundles / "mood").answer(ROWS), load(folder, provider="openvino").answer(ROWS), strict=True
    ):
        assert got.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


def test_openvino_is_imported_only_for_its_provider_and_never_with_torch(bundles):
    code = f"""
import sys
from hyperformer.runtime import load
bundle = load({str(bundles / "mood")!r})
assert "openvino" not in sys.modules
bundle = load({str(bundles / "mood")!r}, provider="openvino")
assert "openvino" in sys.modules and "torch" not in sys.modules and "transformers" not in sys.modules
"""
    process = run_python(code)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "tensorrt"}, r"provider is 'tensorrt'; expected one of cpu, cuda, openvino"),
        ({"provider": "openvino", "precision": "int8"}, r"provider openvino does not run int8 graphs; expected"),
    ],
)
def test_invalid_options_are_refused(bundles, options, message):
    with pytest.raises(HyperFormerError, match=message):
        load(bundles / "mood", **options)


def test_a_provider_that_is_not_installed_is_one_sentence(bundles, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(HyperFormerError, match=r"not installed\. Install hyperformer with the extra 'openvino'"):
        load(bundles / "mood", provider="openvino")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(HyperFormerError, match=r"the provider cuda requires onnxruntime-gpu in place of onnxruntime"):
        load(bundles / "mood", provider="cuda")


def test_cuda_without_a_gpu_is_refused_and_does_not_fall_back(bundles, monkeypatch):
    original, cpu = onnxruntime.InferenceSession, ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [sessions.CUDA, *cpu])
    monkeypatch.setattr(  # onnxruntime-gpu drops a provider that has no device, and warns
        onnxruntime, "InferenceSession", lambda *args, providers, **options: original(*args, providers=cpu, **options)
    )
    with pytest.raises(HyperFormerError, match=r"the provider cuda found no GPU"):
        load(bundles / "mood", provider="cuda")


def test_a_shared_base_runs_on_onnxruntimes_cpu_only(shared_base):
    with pytest.raises(HyperFormerError, match=r"runs with the provider cpu only\. Export separate bundles to use"):
        load(shared_base, provider="openvino")


def test_a_folder_of_tasks_passes_the_provider_on(bundles):
    tasks = load(bundles, provider="openvino")
    assert isinstance(tasks, Bundles)
    assert isinstance(tasks["mood"]._session, sessions.OpenVINOSession)


def test_only_changed_labels_beyond_a_tie_are_changes():
    def answer(*probabilities: float) -> Answer:
        labels = dict(zip("abc", probabilities, strict=True))
        return Answer(max(labels, key=labels.__getitem__), labels)

    expected = [answer(0.505, 0.495, 0.0), answer(0.6, 0.4, 0.0), answer(0.9, 0.1, 0.0), answer(0.5, 0.3, 0.2)]
    answers = [answer(0.495, 0.505, 0.0), answer(0.4, 0.6, 0.0), answer(0.6, 0.4, 0.0), answer(0.3, 0.2, 0.5)]
    assert count_changes(expected, answers) == (2, 1)


def test_a_comparison_that_finds_other_labels_makes_the_provider_refused(
    bundles, toy_rows, tmp_path, monkeypatch, in_float32
):
    task, rows = make_tasks(Tasks(task_settings()))["mood"], list(read_rows(toy_rows, "mood", "validation"))
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    description, answers = manifest.read(folder), load(folder).answer(rows)
    metric = evaluation.compute_metrics(task, rows, answers)["mean"]
    same = openvino.compare(task, rows, folder, description, answers, metric)
    counts = {"rows": len(rows), "changed": 0, "ties": 0}
    assert same == {"metric": metric, "float32": metric, **counts, "bf16": 0.0, "published": 1.0}
    swapped = [
        Answer("positive" if answer.label == "negative" else "negative", {"negative": 0.9, "positive": 0.1})
        for answer in answers
    ]
    other = openvino.compare(task, rows, folder, description, swapped, metric)
    assert (other["changed"], other["published"]) == (len(rows), 0.0)
    dataclasses.replace(description, openvino=other).write(folder)
    with pytest.raises(HyperFormerError, match=rf"{len(rows)} of {len(rows)} rows got another label.*provider cpu"):
        load(folder, provider="openvino")
    load(folder)
