"""String graphs of an encoder's bundles, whose tokenizer file enables padding, as MiniLM's does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from encoders import save_backbone
from toys import task_settings

from hyperformer.backbones import load
from hyperformer.runtime import Bundle
from hyperformer.serving.string_graph import write_string_graph
from hyperformer.serving.string_graph.comparison import PROBES, open_session
from hyperformer.settings import BackboneSettings

COLUMNS = {"mood": ["sentence"], "mood3": ["sentence"], "likeness": ["a", "b"]}


@pytest.mark.parametrize("task", sorted(task_settings()))
def test_strings_become_the_answers_of_an_encoders_bundle(encoder_bundles, tmp_path, task):
    import onnx

    written = write_string_graph(encoder_bundles / task, tmp_path / "task.onnx")
    session = open_session(onnx.load(tmp_path / "task.onnx"))
    rows = [dict.fromkeys(COLUMNS[task], text) for text in ("the film is dull", "[PAD] [UNK]", *PROBES)]
    inputs = {column: np.array([row[column] for row in rows], dtype=object) for column in COLUMNS[task]}
    outputs = dict(zip(written.outputs, session.run(None, inputs), strict=True))
    for number, answer in enumerate(Bundle(encoder_bundles / task).answer(rows)):
        assert outputs["probabilities"][number].tolist() == pytest.approx(list(answer.probabilities.values()), abs=1e-5)
        assert outputs["truncated"][number] == answer.truncated
        best = answer.probabilities[outputs["label"][number]]
        assert best == pytest.approx(answer.probabilities[answer.label], abs=1e-5)


def test_a_tokenizer_file_that_pads_leaves_its_normalizer_and_texts_as_they_are(tmp_path, texts):
    folder = save_backbone(tmp_path, "bert", texts)
    file = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert file["padding"]["strategy"] == {"Fixed": 48}
    backend = load(BackboneSettings(path=str(folder), max_source_tokens=32)).tokenizer.backend_tokenizer
    loaded = json.loads(backend.to_str())
    assert loaded["normalizer"] == file["normalizer"]
    assert loaded["padding"] is None
    assert 0 not in backend.encode("[PAD]").ids
