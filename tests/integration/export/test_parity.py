"""The comparison with PyTorch: a graph that differs from the model is not published."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import GRAPH
from hyperformer.core.types import Scores
from hyperformer.export import parity
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.runtime import Bundle, load

TASK = "mood"
SOURCES = ["sentence: the film is dull", "sentence: the garden is lovely although nobody had expected it at all", "x"]


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(bundles / TASK)


def gap(scores: Scores) -> float:
    return abs(scores.values[0] - scores.values[1])


def shift_label(scores: Scores, by: float) -> Scores:
    """Lower the better score by `by`, and raise the other one by as much."""
    first, second = scores.values
    sign = 1 if first > second else -1
    return Scores(scores.task, (first - sign * by, second + sign * by))


def test_the_exported_graph_is_equal_to_torch_in_a_mixed_batch(bundle, checkpoint):
    expected = MultiTaskModel.from_pretrained(checkpoint).scores(TASK, SOURCES, 2)
    result = parity.compare(expected, bundle, SOURCES, 1e-5)
    assert result["rows"] == 3
    assert result["ties"] == 0
    exported = [*bundle.scores(SOURCES), *(bundle.scores([source])[0] for source in SOURCES)]
    largest = max(
        abs(a - b)
        for left, right in zip([*expected, *expected], exported, strict=True)
        for a, b in zip(left.values, right.values, strict=True)
    )
    assert result["largest_difference"] == pytest.approx(largest, rel=1e-2)


@pytest.mark.parametrize("by", [0.1, 1000.0])
def test_a_graph_that_is_wrong_on_single_rows_only_is_noticed(bundle, by):
    class WrongAlone:
        manifest = bundle.manifest

        def scores(self, sources):
            scores = bundle.scores(sources)
            return [shift_label(scores[0], by)] if len(sources) == 1 else scores

    with pytest.raises(HyperFormerError, match="differs from PyTorch"):
        parity.compare(bundle.scores(SOURCES), WrongAlone(), SOURCES, 1e-3)


def test_one_changed_weight_is_noticed(bundles, checkpoint, tmp_path):
    shutil.copytree(bundles / TASK, tmp_path, dirs_exist_ok=True)
    graph = onnx.load(tmp_path / GRAPH)
    floats = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and list(t.dims) == [16, 16]]
    values = numpy_helper.to_array(floats[0]).copy()
    values[3, 5] += 1.0
    floats[0].CopyFrom(numpy_helper.from_array(values, floats[0].name))
    onnx.save(graph, tmp_path / GRAPH)
    description = manifest.read(tmp_path)
    files = {**description.files, GRAPH: sha256(tmp_path / GRAPH)}
    dataclasses.replace(description, files=files).write(tmp_path)
    expected = MultiTaskModel.from_pretrained(checkpoint).scores(TASK, SOURCES, 2)
    with pytest.raises(HyperFormerError, match=r"graph of task 'mood' differs from PyTorch by .*not published"):
        parity.compare(expected, load(tmp_path), SOURCES, 1e-4)


def test_a_difference_up_to_the_tolerance_passes_and_above_it_does_not(bundle):
    got = bundle.scores(SOURCES[:1])
    expected = [Scores(TASK, tuple(value + 1e-3 for value in got[0].values))]
    result = parity.compare(expected, bundle, SOURCES[:1], 2e-3)
    assert result["largest_difference"] == pytest.approx(1e-3, rel=1e-2)
    with pytest.raises(HyperFormerError, match="differs from PyTorch"):
        parity.compare(expected, bundle, SOURCES[:1], 5e-4)


def shift_scores(scores: list[Scores], by: float, rows: int) -> list[Scores]:
    """Raise every score of the first `rows` rows by `by`."""
    return [Scores(TASK, tuple(value + by for value in row.values)) for row in scores[:rows]] + scores[rows:]


def test_one_text_in_fifty_may_differ_by_ten_times_the_tolerance_and_no_more(bundle):
    sources = [f"sentence: {noun} {number}" for noun in ("film", "song") for number in range(50)]
    got = bundle.scores(sources)
    result = parity.compare(shift_scores(got, 9e-3, 2), bundle, sources, 1e-3)
    assert (result["beyond"], result["rows"]) == (2, 100)
    with pytest.raises(HyperFormerError, match=r"on 3 of 100 texts\. The graph is not published"):
        parity.compare(shift_scores(got, 9e-3, 3), bundle, sources, 1e-3)
    with pytest.raises(HyperFormerError, match=r"on 1 of 100 texts\. The graph is not published"):
        parity.compare(shift_scores(got, 2e-2, 1), bundle, sources, 1e-3)


def test_a_score_that_is_nan_is_refused(bundle):
    got = bundle.scores(SOURCES)
    broken = FakeBundle(bundle, [Scores(TASK, (math.nan, 0.0)), *got[1:]])
    with pytest.raises(HyperFormerError, match="differs from PyTorch by inf"):
        parity.compare(got, broken, SOURCES, 1e-5)


class FakeBundle:
    def __init__(self, bundle, scores):
        self.manifest, self._scores = bundle.manifest, scores

    def scores(self, sources):
        return self._scores[: len(sources)]


def test_a_graph_with_a_different_metric_is_refused():
    parity.check_metric("mood", 80.0, 80.005, {"rows": 100, "ties": 0})
    parity.check_metric("mood", 80.0, 81.0, {"rows": 100, "ties": 1})
    with pytest.raises(
        HyperFormerError, match=r"task 'mood' reaches 80.000 on validation; expected 81.000 as with PyTorch"
    ):
        parity.check_metric("mood", 80.0, 81.0, {"rows": 100, "ties": 0})


def test_different_labels_of_nearly_equal_scores_are_counted_as_ties(bundle):
    got = bundle.scores(SOURCES)
    swapped = [shift_label(got[0], 0.6 * gap(got[0])), *got[1:]]
    assert np.argmax(swapped[0].values) != np.argmax(got[0].values)
    result = parity.compare(swapped, bundle, SOURCES, gap(got[0]))
    assert (result["rows"], result["ties"]) == (3, 1)


def test_a_different_label_without_a_tie_is_refused(bundle):
    got = bundle.scores(SOURCES[:1])
    swapped = [shift_label(got[0], 1.9 * gap(got[0]))]
    with pytest.raises(HyperFormerError, match="and PyTorch predict different labels for"):
        parity.compare(swapped, bundle, SOURCES[:1], 2 * gap(got[0]))
