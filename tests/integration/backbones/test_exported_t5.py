"""Checkpoints and exported graphs of every member of the T5 family, used in another process."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from processes import run_fork
from t5_family import FAMILY, SOURCE, build_model, save_backbone, train_model

from hyperformer.core.manifest import GRAPH
from hyperformer.core.types import Example
from hyperformer.export.classifier import Classifier
from hyperformer.model.multi_task import DEFAULT_EVALUATION
from hyperformer.model.task_models import TaskModels
from hyperformer.settings import ExportSettings

ANSWERS = """
import json, sys, torch
torch.set_num_threads(1)
from hyperformer.model.multi_task import MultiTaskModel
model = MultiTaskModel.from_pretrained(sys.argv[1])
print(json.dumps([s.values for s in model.scores("mood", [sys.argv[2]] * 2, 2)]))
"""


@pytest.fixture(scope="module", params=list(FAMILY))
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """Save a member; with one layer if all have the same structure, as tracing takes seconds per layer."""
    changes = {"num_layers": 1} if request.param in ("t5", "t5 v1.1, flan", "mt5") else {}
    return save_backbone(tmp_path_factory.mktemp("member"), request.param, texts, **changes)


def test_three_steps_change_the_answers_and_a_new_process_gives_the_same(member, tmp_path):
    before = build_model(member).scores("mood", [SOURCE] * 2, 2)
    model = train_model(member)
    wanted = model.scores("mood", [SOURCE] * 2, 2)
    assert max(abs(a - b) for a, b in zip(wanted[0].values, before[0].values, strict=True)) > 1e-2
    model.save_pretrained(tmp_path)
    done = run_fork(ANSWERS, tmp_path, SOURCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [list(scores.values) for scores in wanted]


def test_an_exported_member_scores_as_the_model_does(member, tmp_path):
    model = train_model(member)
    settings = ExportSettings(opset=18, tolerance=1e-4)
    Classifier(TaskModels([model]), settings, DEFAULT_EVALUATION).write(model.tasks["likeness"], tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / GRAPH, providers=["CPUExecutionProvider"])
    sources = ["a: book b: film", "a: the film is dull b: the song is wonderful"]
    rows = model.backbone.encode_examples(
        [Example("likeness", source, "") for source in sources], model.backbone_settings
    )
    batch = {name: model.backbone.collate(rows)[name].numpy() for name in ("input_ids", "attention_mask")}
    scores, value = session.run(["scores", "value"], batch)
    for i, answer in enumerate(model.answer("likeness", [{"a": "book", "b": "film"}])):
        assert value[i] == pytest.approx(answer.value, abs=1e-4)
    wanted = [s.values for s in model.scores("likeness", sources, 2)]
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(wanted), rtol=0, atol=1e-4)
