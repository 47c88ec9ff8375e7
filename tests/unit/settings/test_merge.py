"""Settings of several layers: which value counts, which settings exclude each other, and which preset is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperformer.backbones import FAMILIES, GenerativeBackbone
from hyperformer.settings import ConfigurationError
from hyperformer.settings.merge import list_values, merge_layers, merge_settings
from hyperformer.settings.presets import PRESETS, T5_MODEL_TYPES, choose_preset
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

CONF = Path(__file__).parents[3] / "conf"
ENVIRONMENTS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "local")


def merged_training(*blocks: dict[str, Any]) -> dict[str, Any]:
    """Return the block `training` of layers that have only this block."""
    training: dict[str, Any] = merge_layers([{"file": {"training": block}} for block in blocks])[0]["training"]
    return training


@pytest.mark.parametrize(
    ("inherited", "chosen", "expected"),
    [
        ({"steps": 9, "warmup_steps": 1, "evaluate_every": 2}, {"epochs": 3}, {"epochs": 3, "warmup_ratio": 0.1}),
        ({"steps": 9, "warmup_ratio": 0.2}, {"epochs": 3}, {"epochs": 3, "warmup_ratio": 0.2}),
        ({"steps": 9, "warmup_steps": 1}, {"epochs": 3, "warmup_ratio": 0.2}, {"epochs": 3, "warmup_ratio": 0.2}),
        ({"epochs": 3, "warmup_ratio": 0.1}, {"steps": 9}, {"steps": 9, "warmup_ratio": 0.1}),
        ({"epochs": 3, "warmup_ratio": 0.1}, {"warmup_steps": 2}, {"epochs": 3, "warmup_steps": 2}),
        ({"steps": 9, "warmup_steps": 2}, {"warmup_ratio": 0.1}, {"steps": 9, "warmup_ratio": 0.1}),
        ({"batch_size": 8}, {"batch_tokens": 100}, {"batch_tokens": 100}),
        ({"batch_tokens": 100}, {"batch_size": 8}, {"batch_size": 8}),
        ({"steps": 9}, {"epochs": None}, {"steps": 9, "epochs": None}),
        ({"epochs": 3}, {"steps": 9, "epochs": 2}, {"steps": 9, "epochs": 2}),
    ],
)
def test_a_setting_of_a_later_layer_replaces_those_that_it_excludes(inherited, chosen, expected):
    assert merged_training(inherited, chosen) == expected


def test_an_empty_block_changes_nothing():
    assert merged_training({"steps": 9}, {}) == {"steps": 9}


def test_the_source_of_a_removed_setting_is_that_of_the_setting_that_replaces_it():
    layers = [{"a": {"training": {"steps": 9, "warmup_steps": 1}}}, {"b": {"training": {"epochs": 2}}}]
    tree, origins = merge_layers(layers)
    settings = {"training": {**tree["training"], "steps": None, "warmup_steps": None}}
    assert {source for _, _, source in list_values(settings, origins)} == {"b"}


def test_layers_are_not_changed_by_merging():
    layer = {"file": {"training": {"steps": 1, "nested": {"a": 1}}}}
    merge_layers([layer, {"other": {"training": {"epochs": 1, "nested": {"a": 2}}}}])
    assert layer == {"file": {"training": {"steps": 1, "nested": {"a": 1}}}}


def test_the_files_of_a_layer_have_the_sources_of_their_own_settings():
    tree, origins = merge_layers([{"a": {"tasks": {"x": {"kind": 1}}}, "b": {"tasks": {"y": {"kind": 2}}}}])
    assert list(list_values(tree, origins)) == [("tasks.x.kind", 1, "a"), ("tasks.y.kind", 2, "b")]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_and_the_library_give_all_settings_but_tasks_and_path(preset):
    tree, _ = merge_settings([], [{"file": {"preset": preset}}])
    blocks = {"backbone", "data", "methods", "training", "evaluation", "export"}
    assert {*tree} == {"seed", "threads", "preset", "method", *blocks}


def test_the_preset_of_every_family_is_that_of_its_kind_of_model():
    families = {name: issubclass(family, GenerativeBackbone) for name, family in FAMILIES.items()}
    assert {name for name, generates in families.items() if generates} == set(T5_MODEL_TYPES)


@pytest.mark.parametrize(("model_type", "preset"), [("mt5", "t5"), ("bert", "encoder")])
def test_the_preset_follows_from_the_model_type_of_the_backbone(tmp_path, model_type, preset):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    base, env = {"backbone": {"max_source_tokens": 7}}, {"backbone": {"path": str(tmp_path)}}
    tree, origins = merge_settings([{"base": base}], [{"env": env}])
    assert (tree["preset"], origins["preset"]) == (preset, "model_type of the backbone")
    assert tree["backbone"] == {**PRESETS[preset]["backbone"], "path": str(tmp_path)}
    other = next(name for name in PRESETS if name != preset)
    assert choose_preset({"preset": other, "backbone": {"path": str(tmp_path)}}) == other


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_backbone_without_a_model_type_is_refused_with_the_two_ways_to_fix_it(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError) as error:
        choose_preset({"backbone": {"path": str(tmp_path)}})
    assert str(error.value).startswith(f"cannot read the model type of the backbone {str(tmp_path)!r} (")
    assert str(error.value).endswith("Fix backbone.path, or set preset to encoder or t5.")


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigurationError, match="the setting 'preset' is 'bert'; expected one of encoder, t5, or"):
        choose_preset({"preset": "bert"})


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_trains_the_tasks_that_its_files_name(environment):
    files = [yaml.safe_load(file.read_text()) or {} for file in (CONF / environment).glob("parameters*.yml")]
    named = [name for file in files for name in file.get("tasks", {})]
    tree = ConfigLoader(str(CONF), env=environment, **CONFIG_LOADER_ARGS)["parameters"]
    assert list(tree["tasks"]) == named
    assert named
