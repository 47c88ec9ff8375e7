from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperformer.methods import METHODS
from hyperformer.preflight.settings import check_settings
from hyperformer.settings import ConfigurationError, Settings, rename_settings
from hyperformer.settings.renamed import RENAMED, RENAMED_VALUES
from hyperformer.tasks import make_tasks
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

CONF = Path(__file__).resolve().parents[3] / "conf"
ENVIRONMENTS = sorted(
    {str(file.parent.relative_to(CONF)) for file in CONF.rglob("*.yml")} - {".", "local"}
)  # globbed, not listed, so that new environments are tested too


def shipped(environment: str) -> dict[str, Any]:
    """Return the parameters of an environment."""
    loader = ConfigLoader(conf_source=str(CONF), env=environment, **CONFIG_LOADER_ARGS)
    parameters: dict[str, Any] = loader["parameters"]
    return parameters


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return shipped("base")


@pytest.fixture
def tree(base: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(base)


def error_of(tree: dict[str, Any]) -> str:
    """Return the message with which a parameter tree is refused."""
    with pytest.raises(ConfigurationError) as caught:
        check_settings(tree)
    return str(caught.value)


def test_the_environments_are_found() -> None:
    assert "base" in ENVIRONMENTS


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_shipped_environment_can_be_used(environment: str) -> None:
    settings = check_settings(shipped(environment))
    assert make_tasks(settings.tasks).keys() == shipped(environment)["tasks"].keys()


@pytest.mark.parametrize("file", sorted(CONF.rglob("parameters*.yml")), ids=lambda file: str(file.relative_to(CONF)))
def test_no_block_of_settings_is_another_by_an_alias(file: Path) -> None:
    """`dvc exp run -S` would set the value in both blocks and then overwrite it with the old one."""
    assert not any(isinstance(token, yaml.AliasToken) for token in yaml.scan(file.read_text(encoding="utf-8")))


def test_checked_settings_hold_what_was_written(base: dict[str, Any]) -> None:
    settings = check_settings(base)
    assert isinstance(settings, Settings)
    assert settings.training.steps == base["training"]["steps"]
    assert settings.tasks.root["inference"].labels == {"0": "entailment", "1": "neutral", "2": "contradiction"}
    assert settings.tasks.root["inference"].splits.test == "test"


def test_settings_cannot_be_changed(base: dict[str, Any]) -> None:
    settings = check_settings(base)
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("block", "wrong", "right"),
    [
        ((), "trainning", "training"),
        (("training",), "batchsize", "batch_size"),
        (("pretraining",), "noise_densty", "noise_density"),
        (("pretraining", "sizes"), "num_layer", "num_layers"),
        (("methods", "adapters_per_task"), "reduction_factr", "reduction_factor"),
        (("methods", "hyperformer", "projector"), "hiden_dim", "hidden_dim"),
        (("tasks", "sentiment"), "lables", "labels"),
        (("tasks", "sentiment", "source"), "pth", "path"),
        (("tasks", "sentiment", "splits"), "validaton", "validation"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_name(
    tree: dict[str, Any], block: tuple[str, ...], wrong: str, right: str
) -> None:
    node = tree
    for name in block:
        node = node.setdefault(name, {})
    node[wrong] = 1
    assert f"unknown setting {'.'.join((*block, wrong))!r}; did you mean {right!r}?" in error_of(tree)


@pytest.mark.parametrize("name", ["../up", "/root", "a/b", "..", ".hidden", "", " ", "a\\b", "two\nlines", "nul\0"])
def test_a_task_is_not_named_as_no_folder_can_be(tree: dict[str, Any], name: str) -> None:
    tree["tasks"][name] = tree["tasks"].pop("sentiment")
    assert error_of(tree) == (
        f"the setting 'tasks' is invalid: got the task name {name!r}; expected the name of a folder: no slash or "
        "backslash, no leading dot, no control character, and not blank"
    )


def test_an_unknown_key_that_is_near_to_none_lists_the_known_ones(tree: dict[str, Any]) -> None:
    tree["evaluation"]["zzz"] = 1
    assert error_of(tree) == "unknown setting 'evaluation.zzz'; expected one of batch_size, label_scoring, num_beams"


def test_a_setting_of_another_method_is_unknown(tree: dict[str, Any]) -> None:
    tree["methods"]["adapters_multi_task"]["share_layers"] = True
    assert error_of(tree) == (
        "unknown setting 'methods.adapters_multi_task.share_layers'; expected one of activation, "
        "adapter_init, learning_rate_multipliers, positions, reduction_factor, stacks"
    )


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_error_for_a_renamed_setting_gives_its_name_of_today(tree: dict[str, Any], old: str, new: str) -> None:
    *block, today = new.replace("*", "hyperformer").split(".")
    *_, before = old.split(".")
    node = tree
    for name in block:
        node = node[name]
    node[before] = node.pop(today, None)
    assert error_of(tree) == f"the setting {'.'.join((*block, before))!r} is now called {today!r}; rename it"


@pytest.mark.parametrize(("setting", "old"), [(name, old) for name, olds in RENAMED_VALUES.items() for old in olds])
def test_the_error_for_a_renamed_value_gives_its_name_of_today(tree: dict[str, Any], setting: str, old: str) -> None:
    *block, name = setting.replace("*", "hyperformer").split(".")
    node = tree
    for key in block:
        node = node[key]
    node[name] = old
    today = RENAMED_VALUES[setting][old]
    assert error_of(tree) == (
        f"the setting {'.'.join((*block, name))!r} is {old!r}, which is now called {today!r}; rename it"
    )


def test_a_tree_of_the_previous_version_is_renamed_to_the_same_settings(tree: dict[str, Any]) -> None:
    old = copy.deepcopy(tree)
    hyperformer = old["methods"]["hyperformer"]
    hyperformer["start"] = "authors"
    hyperformer["task_embedding"] = hyperformer.pop("task_embedding_dim")
    hyperformer["projector"] = dict(zip(("hidden", "projected"), hyperformer["projector"].values(), strict=True))
    old["transfer"]["trains"], old["transfer"]["start"] = "own", "noise"
    for name in ("train", "initialize_from"):
        old["transfer"].pop(name, None)
    old["tasks"]["similarity"]["labels"] = None  # as checkpoints contained it
    old["tasks"]["sentiment"] |= {"minimum": None, "maximum": None, "step": None}
    tree["transfer"] |= {"train": "task_specific", "initialize_from": "random"}
    assert check_settings(rename_settings(old)) == check_settings(tree)
    assert rename_settings(tree) == tree


def test_every_method_is_chosen_by_one_value(tree: dict[str, Any]) -> None:
    for name in METHODS:
        tree["method"] = name
        assert check_settings(tree).chosen_method.name == name


def test_a_method_whose_block_is_missing_is_named(tree: dict[str, Any]) -> None:
    del tree["methods"]["hyperformer_plus_plus"]
    assert error_of(tree).startswith(
        "the setting 'method' is 'hyperformer_plus_plus', but `methods` has no block of that name; did you mean"
    )


def test_an_unknown_method_is_named_with_the_known_ones(tree: dict[str, Any]) -> None:
    tree["method"] = "lora"
    message = error_of(tree)
    assert message.startswith(
        "the setting 'method' is 'lora', but `methods` has no block of that name; expected one of "
    )
    assert all(name in message for name in METHODS)


def test_a_misspelt_choice_is_answered_with_the_nearest(tree: dict[str, Any]) -> None:
    tree["methods"]["hyperformer"]["layer_norm"] = "condtional"
    assert error_of(tree) == "the setting 'methods.hyperformer.layer_norm' is 'condtional'; did you mean 'conditional'?"


@pytest.mark.parametrize(
    "setting", ["seed", "training.temperature", "pretraining.sizes.d_model", "tasks.sentiment.text"]
)
def test_a_missing_key_is_named(tree: dict[str, Any], setting: str) -> None:
    node, keys = tree, setting.split(".")
    for key in keys[:-1]:
        node = node[key]
    del node[keys[-1]]
    assert f"the setting {setting!r} is missing" in error_of(tree)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("training.batch_size", "many"),
        ("training.batch_size", 0),
        ("training.batch_size", 2.5),
        ("training.learning_rate", -0.001),
        ("training.label_smoothing", 1.0),
        ("training.precision", "fp16"),
        ("training.temperature", 0),
        ("seed", -1),
        ("export.opset", 17),
        ("tasks.sentiment.kind", "ranking"),
        ("tasks.sentiment.weight", 0),
        ("tasks.sentiment.text", None),
        ("backbone", None),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_was_got(tree: dict[str, Any], setting: str, value: Any) -> None:
    node, keys = tree, setting.split(".")
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    message = error_of(tree)
    assert message.startswith(f"the setting {setting!r} ")
    assert repr(value) in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_tokens": 900}, "either batch_size or batch_tokens"),
        ({"batch_size": None}, "either batch_size or batch_tokens"),
        ({"batch_size": None, "batch_tokens": 900, "processes": 2}, "several processes or gradient accumulation"),
        ({"batch_size": None, "batch_tokens": 900, "gradient_accumulation_steps": 2}, "several processes or gradient"),
        ({"batch_size": 3, "processes": 2, "gradient_accumulation_steps": 2}, "batch_size is 3; expected at least 4"),
        ({"machines": 2}, "machines is 2 and rendezvous is None; set rendezvous to host:port"),
        ({"rendezvous": "first:29400"}, "machines is 1 and rendezvous is 'first:29400'; set rendezvous to"),
        ({"machines": 2, "rendezvous": "first"}, "rendezvous is 'first'; expected host:port"),
    ],
)
def test_settings_of_a_run_that_contradict_each_other_are_refused(
    tree: dict[str, Any], changes: Any, expected: str
) -> None:
    tree["training"] |= changes
    assert expected in error_of(tree)


@pytest.mark.parametrize(
    ("task", "changes", "expected"),
    [
        ("similarity", {"step": 0}, "step > 0"),
        ("similarity", {"maximum": -1}, "maximum > minimum"),
        ("similarity", {"step": 99}, "at least two answers"),
        ("sentiment", {"labels": {0: "only"}}, "at least two"),
        ("sentiment", {"labels": {0: "same", 1: "same"}}, "two labels have the same answer text"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(
    tree: dict[str, Any], task: str, changes: dict[str, Any], expected: str
) -> None:
    tree["tasks"][task].update(changes)
    message = error_of(tree)
    assert f"the setting 'tasks.{task}' is invalid" in message
    assert expected in message


@pytest.mark.parametrize(
    ("task", "changes", "expected"),
    [
        ("similarity", {"labels": {0: "a"}}, "'tasks.similarity.labels' is only for classification tasks; remove it"),
        ("sentiment", {"minimum": 0}, "'tasks.sentiment.minimum' is only for regression tasks; remove it, or change"),
        ("sentiment", {"kind": "generation"}, "'tasks.sentiment.labels' is only for classification tasks"),
        ("sentiment", {"kind": "regression"}, "'tasks.sentiment.minimum' is missing"),
        ("similarity", {"kind": "classification"}, "'tasks.similarity.labels' is missing"),
        ("similarity", {"step": None}, "'tasks.similarity.step' is invalid: Input should be a valid number, got None"),
        (
            "sentiment",
            {"kind": ["classification"]},
            "'tasks.sentiment.kind' is ['classification']; did you mean 'classification'?",
        ),
    ],
)
def test_a_setting_of_another_kind_of_task_is_refused(
    tree: dict[str, Any], task: str, changes: dict[str, Any], expected: str
) -> None:
    tree["tasks"][task].update(changes)
    assert expected in error_of(tree)


def test_an_answer_that_yaml_takes_for_a_truth_value_asks_for_quotes(tree: dict[str, Any]) -> None:
    tree["tasks"]["sentiment"]["labels"] = {0: False, 1: "positive"}
    assert error_of(tree) == (
        "the setting 'tasks.sentiment.labels.0' is the boolean False; expected a string. Quote yes, no, on, off, true "
        "and false in YAML"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"labels": {0: 1, 1: "x"}}, "'tasks.sentiment.labels.0' is the number 1; expected a string. Quote it in YAML"),
        ({"metrics": "accuracy"}, "'tasks.sentiment.metrics' is 'accuracy'; expected a list, such as [a, b]"),
        ({"source": "rows"}, "'tasks.sentiment.source' is 'rows'; expected a block of settings, such as {name: value}"),
        ({"merge_labels": {"x": "0"}}, "'tasks.sentiment.merge_labels.x' is '0'; expected a list, such as [a, b]"),
        ({"merge_labels": {9: ["0"]}}, "'tasks.sentiment.merge_labels.9' is the number 9; expected a string. Quote it"),
        ({"text": {"amount": None}}, 'Quote a text that begins with a brace: "{column}"'),
    ],
)
def test_a_setting_of_another_type_says_what_is_expected(tree: dict[str, Any], change: Any, expected: str) -> None:
    tree["tasks"]["sentiment"].update(change)
    assert expected in error_of(tree)


def test_no_tasks_are_refused(tree: dict[str, Any]) -> None:
    tree["tasks"] = {}
    assert "there are no tasks; expected a block for each task. Add one under `tasks`" in error_of(tree)


def test_a_misspelt_kind_is_named(tree: dict[str, Any]) -> None:
    tree["tasks"]["sentiment"]["kin"] = tree["tasks"]["sentiment"].pop("kind")
    message = error_of(tree)
    assert "'tasks.sentiment.kind' is missing" in message
    assert "unknown setting 'tasks.sentiment.kin'; did you mean 'kind'?" in message


def test_a_seed_that_is_a_float_is_refused(tree: dict[str, Any]) -> None:
    tree["seed"] = 1e3
    assert "'seed' is invalid: Input should be a valid integer, got 1000.0" in error_of(tree)


def test_a_task_without_metrics_is_refused(tree: dict[str, Any]) -> None:
    tree["tasks"]["sentiment"]["metrics"] = []
    assert "'tasks.sentiment.metrics' is invalid" in error_of(tree)


def test_all_errors_are_named_at_once(tree: dict[str, Any]) -> None:
    tree["sede"] = 1
    tree["training"]["steps"] = "many"
    del tree["export"]["opset"]
    tree["tasks"]["sentiment"]["lables"] = {}
    tree["tasks"]["similarity"]["step"] = None
    message = error_of(tree)
    names = ("sede", "training.steps", "export.opset", "tasks.sentiment.lables", "tasks.similarity.step")
    for setting in map(repr, names):
        assert message.count(setting) == 1


@pytest.mark.parametrize("tree", [None, [], {"tasks": []}])
def test_a_tree_of_another_shape_is_a_configuration_error(tree: Any) -> None:
    with pytest.raises(ConfigurationError):
        check_settings(tree)
