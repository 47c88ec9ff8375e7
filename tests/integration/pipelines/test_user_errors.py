"""Mistakes in the catalog and damaged artifacts, as a user meets them: one sentence that names the file and the fix."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from processes import kedro, kedro_process


def assert_one_sentence(result: CompletedProcess[str], message: str) -> None:
    output = result.stdout + result.stderr
    assert result.returncode == 1, output[-3000:]
    assert "Traceback" not in output
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert re.search(message, result.stderr.splitlines()[-1]), result.stderr


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("rows: 3", "the catalog is invalid: Catalog entry 'rows' is not a valid dataset configuration"),
        ("rows: {filepath: x}", "dataset 'rows': 'type' is missing from dataset catalog configuration"),
        ("rows: {type: pipelines.datasets.FolderDatase, filepath: x}", "Dataset 'FolderDatase' not found in"),
        ("rows: {type: nowhere.Dataset, filepath: x}", "No module named 'nowhere'"),
        ("rows: {type: pipelines.datasets.FolderDataset}", "missing 1 required positional argument: 'filepath'"),
        ("rows: {type: pipelines.datasets.FolderDataset, filepath: 3}", "expected str, bytes or os.PathLike"),
        ("rows: {type: MemoryDataset, credentials: me}", "Unable to find credentials 'me'"),
        (
            "rows: {type: MemoryDataset}",
            "rows has no path in the catalog; expected `filepath` in its entry. Add it",
        ),
    ],
)
def test_a_wrong_entry_of_the_catalog_is_named(tree, tmp_path, entry, message):
    conf = shutil.copytree(tree / "conf", tmp_path / "conf")
    (conf / "test" / "catalog.yml").write_text(entry)
    assert_one_sentence(kedro(tree, "--tags", "train", "--conf-source", str(conf)), message)


def test_versions_of_datasets_that_have_none_are_refused(tree):
    result = kedro(tree, "--tags", "report", "--load-versions", "metrics:2024-01-01T00.00.00.000Z")
    assert_one_sentence(result, "--load-versions names 'metrics', which has no versions in Kedro; expected a dataset")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [truncate, replace_by_folder])
@pytest.mark.parametrize(
    ("file", "tag", "message"),
    [
        ("03_primary/rows/sentiment/train.parquet", "train", "cannot be read .* Remove it, then run that stage again"),
        ("03_primary/split_counts.json", "report", "cannot be read .* Remove it, then run that stage again"),
        ("06_models/backbone/config.json", "train", "cannot load a backbone from .*06_models/backbone"),
        ("06_models/backbone/model.safetensors", "train", "cannot load a backbone from .* Set backbone.path"),
        (
            "06_models/backbone/tokenizer.json",
            "train",
            "cannot load a backbone from .*tokenizer(.json)? is (missing|damaged)",
        ),
        ("06_models/checkpoint/configuration.json", "evaluate", "Train again|Train a model first"),
        ("06_models/checkpoint/configuration.json", "report", "Train again|Train a model first"),
        ("06_models/checkpoint/trained.safetensors", "evaluate", "train again|Train a model first"),
        (
            "06_models/checkpoint/trained.safetensors",
            "report",
            "cannot be read .* Remove it, then run that stage again",
        ),
        ("07_model_output/predictions/sentiment/test.csv", "report", "cannot be read .* then run that stage again"),
    ],
)
def test_a_damaged_artifact_is_named_with_what_to_do(copy, file, tag, message, damage):
    damage(copy / "data/test" / file)
    assert_one_sentence(kedro(copy, "--tags", tag), message)


def test_a_damaged_record_of_durations_is_replaced(copy):
    truncate(copy / "data/test/08_reporting/times/steps.json")
    assert kedro(copy, "--tags", "report").returncode == 0


def test_results_without_a_new_task_are_refused(copy):
    tasks = copy / "conf/test/parameters_tasks.yml"
    tasks.write_text(tasks.read_text().replace("  repeat:", "  again:"))
    assert_one_sentence(kedro(copy, "--tags", "report"), "tasks.repeat is missing in the settings and present in the")


def test_metrics_of_other_tasks_are_refused_by_the_export(copy):
    (copy / "data/test/08_reporting/metrics.json").write_text('{"test": {}, "validation": {"sentiment": {}}}')
    result = kedro(copy, "--tags", "export")
    assert_one_sentence(result, "there are no test metrics of the task 'sentiment'; expected those of every task")


def test_relative_paths_refer_to_the_project_from_every_folder(tree, tmp_path):
    (tmp_path / "options.yml").write_text("run: {tags: parameter_counts}")
    project = shutil.copytree(tree, tmp_path / "copy")
    counts = project / "data/test/08_reporting/parameter_counts.json"
    before = counts.read_bytes()
    counts.unlink()
    result = kedro_process(project / "pipelines" / "hooks", "--config", "../../../options.yml", HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.match(r"\d\d:\d\d:\d\d  ", result.stdout.splitlines()[-1])  # the project's format of logs
    assert counts.read_bytes() == before
