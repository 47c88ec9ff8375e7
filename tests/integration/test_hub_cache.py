"""Backbones, checkpoints and datasets that are loaded offline by their hub names, from the hub's caches.

Each test runs in a new interpreter, because the hub's libraries read their environment variables when imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from datasets.packaged_modules.parquet.parquet import Parquet
from processes import run_python
from pyarrow import parquet

BACKBONE = """
import sys
from hyperformer import backbones
from hyperformer.settings import BackboneSettings
settings = BackboneSettings(
    path="somebody/tiny-t5", max_source_tokens=8, max_target_tokens=8, revision=sys.argv[1] or None
)
loaded = backbones.load(settings)
print(loaded.width, len(loaded.sites()), float(loaded.t5.shared.weight.abs().sum()))
"""


def test_a_hub_name_is_loaded_offline_from_the_hubs_cache(backbone_folder, backbone, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = tmp_path / "hub" / "models--somebody--tiny-t5"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    shutil.copytree(backbone_folder, model / "snapshots" / commit)
    process = run_python(BACKBONE, "", HF_HOME=str(tmp_path), HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    assert process.returncode == 0, process.stderr
    width, sites, total = process.stdout.split()
    assert (int(width), int(sites)) == (16, 8)
    assert float(total) == pytest.approx(float(backbone.t5.shared.weight.detach().abs().sum()))


CHECKPOINT = """
import sys
from hyperformer.model.multi_task import MultiTaskModel
print(MultiTaskModel.from_pretrained("somebody/tasks").predict("mood", {"sentence": "the film is dull"}))
"""


def test_a_checkpoint_is_loaded_offline_from_the_hubs_cache(make_model, tmp_path):
    snapshot = tmp_path / "models--somebody--tasks" / "snapshots" / ("a" * 40)
    model = make_model(loud=True)
    model.save_pretrained(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    process = run_python(CHECKPOINT, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert process.returncode == 0, process.stderr
    assert model.predict("mood", {"sentence": "the film is dull"}).label in process.stdout


READ_OFFLINE = """
import json, sys
from pathlib import Path
from hyperformer.settings import DataSettings, Tasks
from hyperformer.data.splits import prepare
from hyperformer.tasks import make_tasks
from hyperformer.core.errors import HyperFormerError

results = {}
for path, name, limit, part in (
    ("org/name", "cola", None, ""),
    ("org/name", "cola", 3, ""),
    ("org/name", "cola", None, "[1:]"),
    ("org/name", "rte", None, ""),
    ("org/unknown", "cola", None, ""),
):
    task = {"text": "{a}", "kind": "classification", "label_column": "label", "labels": {0: "no", 1: "yes"},
            "metrics": ["accuracy"], "source": {"name": name, "rows": limit},
            "splits": {"train": f"train{part}", "validation": "validation_matched"}}
    try:
        rows, _ = prepare(make_tasks(Tasks.model_validate({"t": task})), DataSettings(source=path), Path("unused"), 0)
        results[f"{path}/{name}{limit or part}"] = {split: list(kept) for split, kept in rows["t"].items()}
    except HyperFormerError as error:
        results[f"{path}/{name}{limit or part}"] = str(error)
Path(sys.argv[1]).write_text(json.dumps(results))
"""


def test_a_hub_dataset_is_read_offline_from_the_cache_of_datasets(tmp_path: Path) -> None:
    """`datasets` itself writes the cache."""
    files = {split: tmp_path / f"{split}.parquet" for split in ("train", "validation_matched", "test")}
    for split, file in files.items():
        parquet.write_table(
            pa.table({"a": [f"{split} {i}" for i in range(4)], "label": [0, 1, 1, 0], "idx": range(4)}), file
        )
    cache = tmp_path / "home/datasets"
    data_files = {split: str(file) for split, file in files.items()}
    builder = Parquet(
        cache_dir=str(cache), dataset_name="name", config_name="cola", hash="0" * 16, data_files=data_files
    )
    builder.download_and_prepare()
    (cache / "org___name").mkdir()  # where `datasets` looks for "org/name", configuration by configuration
    Path(builder.cache_dir).parents[1].rename(cache / "org___name/cola")

    paths = {"HF_HOME": "home", "HF_DATASETS_CACHE": "home/datasets", "HF_HUB_CACHE": "home/hub"}
    env = {**os.environ, **{name: str(tmp_path / path) for name, path in paths.items()}, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", READ_OFFLINE, str(tmp_path / "results.json")]
    subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())

    assert results["org/name/cola"] == {
        split: [{"a": f"{source} {i}", "label": label} for i, label in enumerate("0110")]
        for split, source in (("train", "train"), ("validation", "validation_matched"), ("test", "test"))
    }
    assert results["org/name/cola3"] == {split: rows[:3] for split, rows in results["org/name/cola"].items()}
    assert results["org/name/cola[1:]"]["train"] == results["org/name/cola"]["train"][1:]
    for name, configuration in (("org/name", "rte"), ("org/unknown", "cola")):
        message = results[f"{name}/{configuration}"]
        assert f"task 't': cannot load split 'train' of '{name}', configuration {configuration} (" in message
        assert "Set data.source or the task's source." in message
