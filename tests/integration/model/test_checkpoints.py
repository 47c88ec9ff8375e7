"""Checkpoints that another process loads, and their model card."""

from __future__ import annotations

import json

from processes import run_fork

from hyperformer.core.manifest import MODEL_CARD

SOURCES = [
    "sentence: the film is dull",
    "a: the book is good b: a song was wonderful today",
    "which mood: the story is lovely although nobody in the village had expected it",
    "sentence: the garden is charming on the whole",
    "a: dull b: dull",
]
ANSWERS = """
import json, pathlib, sys
import torch
torch.set_num_threads(1)
from hyperformer.model.multi_task import MultiTaskModel
loaded = MultiTaskModel.from_pretrained(pathlib.Path(sys.argv[1]))
print(json.dumps([[s.values for s in loaded.scores(task, json.loads(sys.argv[2]), 2)] for task in loaded.tasks]))
"""


def test_a_saved_model_scores_the_same_in_a_new_process(make_model, tmp_path):
    model = make_model(loud=True)
    model.save_pretrained(tmp_path)
    sources = SOURCES
    wanted = [[list(s.values) for s in model.scores(task, sources, 2)] for task in model.tasks]
    done = run_fork(ANSWERS, tmp_path, json.dumps(sources))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted


def test_the_model_card_names_backbone_method_and_tasks_and_its_code_runs(make_model, tmp_path, backbone_folder):
    make_model().save_pretrained(tmp_path)
    card = (tmp_path / MODEL_CARD).read_text()
    assert card.startswith("---\nlibrary_name: hyperformer\n")
    assert all(word in card for word in (str(backbone_folder), "hyperformer_plus_plus", "mood3", "regression"))
    code = (
        card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/folder or Hub name", str(tmp_path))
    )
    done = run_fork(code.replace("model.predict", "answer = model.predict") + "print(answer)")
    assert done.returncode == 0, done.stderr
    assert "Answer(label=" in done.stdout
