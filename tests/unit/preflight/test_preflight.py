"""The checks before a run; tests/integration/pipelines/test_chain.py has their messages in Kedro."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyperformer import preflight
from hyperformer.core.errors import HyperFormerError
from hyperformer.preflight.settings import check_settings
from hyperformer.settings import Settings
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in the folder that has the artifacts."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_settings(**changes: Any) -> Settings:
    parameters = ConfigLoader(str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS)["parameters"]
    parameters["backbone"]["path"] = str(ROOT / "data/06_models/backbone")
    for name, value in changes.items():
        parameters[name] = {**parameters[name], **value} if isinstance(value, dict) else value
    return check_settings(parameters)


def check(inputs: str = "", outputs: str = "", missing: str = "", **changes: Any) -> None:
    """Check a run with the base settings, some of them changed; names are separated by spaces."""
    paths = {name: name for name in [*inputs.split(), "checkpoint", "transfer_starts"]}
    preflight.check_run(make_settings(**changes), inputs.split(), outputs.split(), paths, missing.split())


@pytest.mark.parametrize(
    ("artifacts", "message"),
    [
        ({"inputs": "history", "missing": "history"}, "and it has no history to report. Use another environment"),
        ({"outputs": "checkpoint history"}, "and training would replace it. Use another environment"),
    ],
)
def test_an_adapted_checkpoint_is_neither_reported_nor_replaced(folder, artifacts, message):
    (folder / "transfer_starts").touch()
    with pytest.raises(HyperFormerError, match=f"^the checkpoint in checkpoint was adapted by .* {message}"):
        check(**artifacts)
    check(outputs="metrics")


def test_the_first_missing_input_is_reported_before_incompatible_settings():
    with pytest.raises(HyperFormerError, match=r"^rows is missing; expected it at rows\. Run the pipeline that"):
        check("rows tokens", missing="rows tokens", backbone={"path": "nowhere"})


@pytest.mark.parametrize(
    ("inputs", "outputs", "changes", "message"),
    [
        ("params:data", "", {"data": {"source": "/nowhere"}}, "the folder /nowhere does not exist"),
        ("rows", "tokens", {"backbone": {"path": "nowhere/at-all"}}, "cannot load a backbone from 'nowhere/at-all'"),
        ("tokens", "", {"backbone": {"max_target_tokens": 1}}, "expected at most 1, backbone.max_target_tokens"),
        ("params:transfer", "", {"transfer": {"checkpoint": "checkpoint"}}, "which this run would overwrite with"),
        ("params:transfer", "", {"transfer": {"checkpoint": "nowhere"}}, "no checkpoint 'nowhere': neither a folder"),
        ("", "shared_base", {"method": "fine_tuning_multi_task"}, "trains the backbone; expected a method with a"),
        ("", "bundles", {"evaluation": {"label_scoring": "generated"}}, "expected 'constrained' or 'likelihood'"),
        ("", "shared_base", {"evaluation": {"label_scoring": "generated"}}, "expected 'constrained' or 'likelihood'"),
        ("params:export", "", {"export": {"allow_below_majority": ["no"]}}, "unknown task 'no'; expected one of"),
        (
            "params:export",
            "",
            {"export": {"label_names": {"sentimen": {}}}},
            "task 'sentimen'; did you mean 'sentiment'",
        ),
    ],
)
def test_only_what_a_run_uses_is_checked(inputs, outputs, changes, message):
    with pytest.raises(HyperFormerError, match=message):
        check(inputs, outputs, **changes)
    check("rows", "metrics", **changes)


def test_a_run_that_pretrains_its_backbone_needs_none_before():
    check("rows", "tokens pretrained_backbone", backbone={"path": "nowhere"})


def test_a_compatible_run_is_accepted():
    check("params:data rows", "tokens checkpoint history bundles shared_base")
