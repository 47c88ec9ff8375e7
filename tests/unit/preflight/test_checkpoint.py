"""The settings of a run that uses a checkpoint are compared with those of its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toys import method_settings, task_settings

from hyperformer import preflight
from hyperformer.core.errors import HyperFormerError
from hyperformer.model.checkpoint import CONFIGURATION, Checkpoint, write_configuration
from hyperformer.preflight.settings import check_settings
from hyperformer.settings import BackboneSettings, Tasks
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

ROOT = Path(__file__).parents[3]
BACKBONE = {"path": "backbone", "max_source_tokens": 32, "max_target_tokens": 16}
METHOD = method_settings("hyperformer_plus_plus")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the configuration of a checkpoint of the toy tasks, and run each test in the folder that has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    tasks = Tasks(task_settings())
    write_configuration(
        Checkpoint(
            "", tmp_path / "checkpoint", BackboneSettings(**BACKBONE), "0", METHOD, tasks, [list(tasks.root)], {}
        )
    )
    return tmp_path


def check(inputs: str = "checkpoint", missing: str = "", **changes: Any) -> None:
    """Check a run with the settings of the training, of which some blocks are changed."""
    parameters = ConfigLoader(str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS)["parameters"]
    parameters |= {"tasks": task_settings(), "backbone": BACKBONE, "method": METHOD.name}
    parameters["methods"] = {METHOD.name: METHOD.settings.model_dump()}
    settings = check_settings({**parameters, **changes})
    paths = {name: name for name in [*inputs.split(), "checkpoint", "transfer_starts"]}
    preflight.check_run(settings, inputs.split(), ["metrics"], paths, missing.split())


def change_task(name: str, **changes: Any) -> dict[str, Any]:
    tasks = task_settings()
    return {**tasks, name: {**tasks[name], **changes}}


def test_the_settings_of_the_training_are_accepted():
    check()


def test_settings_of_a_task_that_only_training_uses_may_differ():
    check(tasks=change_task("mood", source={"path": "elsewhere", "rows": 7}, splits={"test": "hold_out_9"}, weight=2.0))


def test_tasks_in_another_order_are_the_same():
    check(tasks=dict(reversed(task_settings().items())))


def test_a_run_without_a_checkpoint_may_have_any_settings(folder):
    check(inputs="rows", tasks=change_task("mood", text="{sentence}"))
    (folder / "checkpoint" / CONFIGURATION).unlink()
    check(inputs="rows")


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ({0: "negative", 1: "good"}, "labels.1 is 'good' in the settings and 'positive' in"),
        ({0: "negative"} | {1: "positive", 2: "both"}, "labels.2 is 'both' in the settings and missing in"),
        ({1: "positive", 0: "negative"}, "labels is ['1', '0'] in the settings and ['0', '1'] in"),
    ],
)
def test_a_changed_label_is_named_with_the_setting_that_renames_it(labels, shown):
    with pytest.raises(HyperFormerError) as caught:
        check(tasks=change_task("mood", labels=labels))
    assert str(caught.value) == (
        f"tasks.mood.{shown} the checkpoint checkpoint; expected the settings of the training. Train again, or restore "
        "the value, or set export.label_names to show another label."
    )


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"text": "{sentence}"}, "text is '{sentence}' in the settings and 'sentence: {sentence}' in"),
        (
            {"text": ["{sentence}", "{label}"]},
            "text is ['{sentence}', '{label}'] in the settings and 'sentence: {sentence}' in",
        ),
        ({"metrics": ["accuracy", "f1"]}, "metrics is ['accuracy', 'f1'] in the settings and ['accuracy'] in"),
        ({"missing": "drop"}, "missing is 'drop' in the settings and null in"),
        ({"label_column": "y"}, "label_column is 'y' in the settings and 'label' in"),
        (
            {"kind": "regression", "labels": None, "minimum": 0, "maximum": 1, "step": 1, "metrics": ["pearson"]},
            "kind is 'regression' in the settings and 'classification' in",
        ),
    ],
)
def test_another_setting_of_a_task_is_named_with_both_values(changes, shown):
    with pytest.raises(HyperFormerError) as caught:
        check(tasks=change_task("mood", **changes))
    assert str(caught.value) == (
        f"tasks.mood.{shown} the checkpoint checkpoint; expected the settings of the training. Train again, or restore "
        "the value."
    )


def test_missing_and_additional_tasks_are_named():
    tasks = task_settings()
    with pytest.raises(
        HyperFormerError, match=r"^tasks\.mood is missing in the settings and present in the checkpoint"
    ):
        check(tasks={name: task for name, task in tasks.items() if name != "mood"})
    with pytest.raises(
        HyperFormerError, match=r"^tasks\.more is present in the settings and missing in .* the task\.$"
    ):
        check(tasks={**tasks, "more": tasks["mood"]})


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"backbone": {**BACKBONE, "path": "other"}}, "backbone.path is 'other' in the settings and 'backbone' in"),
        (
            {"backbone": {**BACKBONE, "max_source_tokens": 64}},
            "backbone.max_source_tokens is 64 in the settings and 32 in",
        ),
        (
            {"methods": {METHOD.name: {**METHOD.settings.model_dump(), "reduction_factor": 2}}},
            "methods.hyperformer_plus_plus.reduction_factor is 2 in the settings and 4 in",
        ),
        (
            {"method": "fine_tuning_multi_task", "methods": {"fine_tuning_multi_task": {}}},
            "method is 'fine_tuning_multi_task' in the settings and 'hyperformer_plus_plus' in",
        ),
    ],
)
def test_another_backbone_or_method_is_refused_unless_the_checkpoint_was_adapted(folder, changes, shown):
    with pytest.raises(HyperFormerError) as caught:
        check(**changes)
    assert str(caught.value).startswith(f"{shown} the checkpoint checkpoint; expected the settings of the training.")
    (folder / "transfer_starts").touch()
    check(**changes)
    with pytest.raises(HyperFormerError, match=r"tasks\.mood\.text is '\{sentence\}' in the settings and"):
        check(tasks=change_task("mood", text="{sentence}"))


def test_another_path_of_the_same_backbone_is_accepted(folder):
    check(backbone={**BACKBONE, "path": str(folder / "backbone")})


def test_a_checkpoint_without_settings_that_have_defaults_and_with_old_names_is_compared_by_values(folder):
    file = folder / "checkpoint" / CONFIGURATION
    configuration = json.loads(file.read_text())
    for task in configuration["tasks"].values():
        for name in ("missing", "merge_labels", "source", "splits", "weight"):
            task.pop(name, None)
    method = configuration["methods"][METHOD.name]
    method["task_embedding"] = method.pop("task_embedding_dim")
    file.write_text(json.dumps(configuration))
    check()


def test_a_damaged_checkpoint_is_refused(folder):
    (folder / "checkpoint" / CONFIGURATION).write_text("{")
    with pytest.raises(HyperFormerError, match="checkpoint checkpoint is damaged"):
        check()
