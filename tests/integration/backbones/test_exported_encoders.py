"""Checkpoints of every kind of encoder in another process, and their exported graphs without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from encoders import FAMILY, SOURCE, build_model, save_backbone, select_rows, train_model
from processes import run_fork

from hyperformer.core.files import sha256
from hyperformer.core.manifest import FORMAT, Manifest
from hyperformer.export.classifier import Classifier
from hyperformer.export.parity import compare
from hyperformer.model.task_models import TaskModels
from hyperformer.runtime import Bundle
from hyperformer.settings import EvaluationSettings, ExportSettings

SCORES = """
import json, sys, torch
torch.set_num_threads(1)
from hyperformer.model.multi_task import MultiTaskModel
model = MultiTaskModel.from_pretrained(sys.argv[1])
print(json.dumps([s.values for s in model.scores("likeness", [("a book", sys.argv[2])] * 2, 2)]))
"""


@pytest.fixture(scope="module", params=list(FAMILY))
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """Save a member, with one layer for all but BERT, as tracing takes seconds per layer."""
    changes = {} if request.param == "bert" else {"num_hidden_layers": 1}
    return save_backbone(tmp_path_factory.mktemp("member"), request.param, texts, **changes)


def test_three_steps_change_the_answers_and_a_new_process_gives_the_same(member, tmp_path):
    pair = ("a book", SOURCE)
    before = build_model(member).scores("likeness", [pair] * 2, 2)
    model = train_model(build_model(member))
    wanted = model.scores("likeness", [pair] * 2, 2)
    assert max(abs(a - b) for a, b in zip(wanted[0].values, before[0].values, strict=True)) > 1e-2
    model.save_pretrained(tmp_path)
    done = run_fork(SCORES, tmp_path, SOURCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [list(scores.values) for scores in wanted]


@pytest.mark.parametrize("task", ["mood3", "likeness"])
def test_a_member_is_exported_and_answered_without_torch(member, tmp_path, task):
    model = train_model(build_model(member))
    evaluation = EvaluationSettings(batch_size=4)
    target = Classifier(TaskModels([model]), ExportSettings(opset=18, tolerance=1e-4), evaluation)
    spec = model.tasks[task]
    target.write(spec, tmp_path)
    files = {path.name: sha256(path) for path in tmp_path.iterdir()}
    Manifest(
        format=FORMAT, task=task, kind=spec.settings.kind, text=model.backbone.format_template(spec.settings.text),
        missing=None, labels=spec.answers, numbers=spec.numbers, max_source_tokens=32, opset=18, backbone="b",
        method="m", files=files, parity={}, int8={}, openvino={}, metrics={}, baselines={}, published=True,
        made_from={},
    ).write(tmp_path)  # fmt: skip
    bundle = Bundle(tmp_path)
    rows = select_rows(task)
    rows += [dict.fromkeys(rows[0], "a [SEP] </s>"), dict.fromkeys(rows[0], "lovely film " * 40)]
    sources = [model.source(task, row) for row in rows]
    assert [bundle.source(row) for row in rows] == sources
    parity = compare(model.scores(task, sources, 4), bundle, sources, 1e-4)
    assert parity["ties"] == 0
    answers = bundle.answer(rows)
    assert [answer.label for answer in answers] == [answer.label for answer in model.answer(task, rows)]
    assert [answer.truncated for answer in answers] == [False] * (len(rows) - 1) + [True]
