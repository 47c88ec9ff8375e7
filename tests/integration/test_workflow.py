"""Training and export from Python, with the package's own parts and with parts from outside it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from encoders import save_backbone
from processes import run_fork
from toys import toy_sentences

import hyperformer
from hyperformer import HyperFormerError

ROOT = Path(__file__).parents[2]
TASK = {
    "text": "sentence: {sentence}",
    "kind": "classification",
    "label_column": "label",
    "labels": {0: "negative", 1: "positive"},
    "metrics": ["accuracy"],
}
TRAINING = {"steps": 4, "warmup_steps": 1, "evaluate_every": 2, "batch_size": 8, "learning_rate": 0.01}


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Write a folder with a CSV file for each split."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    rows = toy_sentences()
    for split, chosen in {"train": rows[:30], "validation": rows[30:50], "test": rows[50:]}.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["sentence", "label"])
            writer.writeheader()
            writer.writerows(chosen)
    return folder


def test_the_example_trains_exports_and_answers(reviews, texts, tmp_path):
    code = (ROOT / "examples" / "train.py").read_text()
    assert code.partition('"""\n\n')[2] in (ROOT / "README.md").read_text()
    backbone = save_backbone(tmp_path / "bert", "bert", texts, max_position_embeddings=130)
    allowed = {"allow_below_majority": ["kind_of_question"]}
    methods = {"hyperformer_plus_plus": {"reduction_factor": 4, "task_embedding_dim": 8, "projector": None}}
    for old, new in {
        "data/minilm/06_models/backbone": str(backbone),
        "data/from_python": str(tmp_path / "run"),
        "examples/questions": str(ROOT / "examples" / "questions"),
        'training={"steps": 150, "batch_size": 16}': f"training={TRAINING}, methods={methods}, export={allowed}",
    }.items():
        assert old in code
        code = code.replace(old, new)
    code += f"""
model = hyperformer.MultiTaskModel.from_pretrained({str(tmp_path / "run" / "checkpoint")!r})
print(model.predict("kind_of_question", {{"question": "Who wrote Emma?"}}))
"""
    done = run_fork(code)
    assert done.returncode == 0, done.stderr
    exported, expected = (eval(line, {"Answer": hyperformer.Answer}) for line in done.stdout.splitlines()[-2:])
    assert exported.label == expected.label
    assert exported.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    written = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")}
    assert written == {"rows", "tokens", "checkpoint", "metrics.json", "onnx"}


def test_what_cannot_be_trained_or_exported_is_refused_before_anything_is_written(reviews, backbone_settings, tmp_path):
    tasks = {"mood": {**TASK, "source": {"path": str(reviews)}}}
    with pytest.raises(HyperFormerError, match=r"unknown setting 'training.step'; did you mean 'steps'\?"):
        hyperformer.train(tmp_path / "run", tasks, backbone_settings.path, training={"step": 1})
    for export, message in (
        ({"allow_below_majority": ["moods"]}, r"unknown task 'moods'; did you mean 'mood'\?"),
        ({"label_names": {"mood": {"postive": "good"}}}, r"unknown label 'postive'; did you mean 'positive'\?"),
    ):
        with pytest.raises(HyperFormerError, match=message):
            hyperformer.train(tmp_path / "run", tasks, backbone_settings.path, export=export)
    with pytest.raises(HyperFormerError, match="Train first"):
        hyperformer.export_bundles(tmp_path / "run")
    assert not (tmp_path / "run").exists()


EXTENDED = """
import json, sys
import torch
torch.set_num_threads(1)
import extensions
extensions.register()
import hyperformer
folder, reviews, backbone, training = sys.argv[1:]
task = {"source": {"path": reviews}, "text": "{sentence}", "kind": "yes_no", "label_column": "label", "yes": "1",
        "metrics": ["accuracy"]}
lengths = {"path": backbone, "max_source_tokens": 32}
models = hyperformer.train(folder, {"mood": task}, lengths, method="random_adapter",
                           methods={"random_adapter": {"bottleneck": 4}}, training=json.loads(training),
                           export={"allow_below_majority": ["mood"]})
bundles = hyperformer.export_bundles(folder)
row = {"sentence": "the film is wonderful"}
print(json.dumps([bundles["mood"](row).probabilities, models.predict("mood", row).probabilities]))
try:
    hyperformer.train(folder, {"mood": {**task, "yess": 1}}, backbone)
except hyperformer.HyperFormerError as error:
    print(json.dumps(str(error)))
"""


def test_a_kind_a_method_a_backbone_and_a_target_from_outside_are_trained_and_exported(reviews, tmp_path, texts):
    backbone = save_backbone(tmp_path / "bert", "bert", texts)
    configuration = json.loads((backbone / "config.json").read_text())
    (backbone / "config.json").write_text(json.dumps({**configuration, "model_type": "copied_bert"}))
    done = run_fork(EXTENDED, tmp_path / "run", reviews, backbone, json.dumps(TRAINING))
    assert done.returncode == 0, done.stderr
    answers, refused = map(json.loads, done.stdout.splitlines()[-2:])
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)
    assert set(answers[0]) == {"no", "yes"}
    assert (tmp_path / "run" / "onnx" / "mood" / "answers.txt").read_text() == "no\nyes"
    assert "answers.txt" in json.loads((tmp_path / "run" / "onnx" / "mood" / "manifest.json").read_text())["files"]
    assert "unknown setting 'tasks.mood.yess'; did you mean 'yes'?" in refused
