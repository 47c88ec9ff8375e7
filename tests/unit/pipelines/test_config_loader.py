"""Loading of configuration files: every mistake in them is one sentence that names the file and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from hyperformer.settings import ConfigurationError
from hyperformer.settings.merge import list_values, merge_layers
from hyperformer.settings.presets import LIBRARY, PRESETS
from pipelines.cli import cli
from pipelines.config_loader import ConfigLoader
from pipelines.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[3]


def load(
    conf: Path, files: dict[str, str | bytes], key: str = "parameters", params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the files of a configuration, and load one kind of them in `env`, without the defaults of the library."""
    for folder in ("base", "env"):
        (conf / folder).mkdir(exist_ok=True)
    for name, content in files.items():
        (conf / name).write_bytes(content.encode() if isinstance(content, str) else content)
    loader = ConfigLoader(str(conf), env="env", runtime_params=params, **CONFIG_LOADER_ARGS)
    tree = loader[key]
    defaults, _ = merge_layers([{"library": LIBRARY}])
    return {name: value for name, value in tree.items() if name not in defaults or value != defaults[name]}


def load_error(*arguments: Any, **options: Any) -> str:
    """Return the message of the error in loading, which must be one line."""
    with pytest.raises(ConfigurationError) as error:
        load(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["parameters", "catalog", "credentials"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("a: é".encode("latin-1"), " is not valid UTF-8 at byte 3; expected a YAML file in", id="latin-1"),
        pytest.param("a: 1\n".encode("utf-16"), " is not valid UTF-8 at byte 0;", id="utf-16"),
        pytest.param("a: 1\n".encode("utf-16-le"), r" contains the control character '\x00'; expected", id="utf-16-le"),
        pytest.param("- a\n", " is a list; expected a mapping. Write", id="list"),
        pytest.param("hello\n", " is a single value; expected a mapping.", id="text"),
        pytest.param("a: 1\na: 2\n", ", line 2, column 1: found duplicate key a. Fix the YAML", id="duplicate"),
        pytest.param(
            "a: {1: b, true: c}\n", ", line 1: the keys 1 and true are equal in YAML; expected", id="1-and-true"
        ),
        pytest.param(
            "a: [{1: b,\n 1.0: c}]\n", ", line 2: the keys 1 and 1.0 are equal in YAML; expected", id="1-and-1.0"
        ),
        pytest.param("a: {1: b, 1: c}\n", ", line 1: the keys 1 and 1 are equal in YAML; expected", id="1-twice"),
        pytest.param("a:\n\tb: 1\n", ", line 2, column 1: found character '\\t' that cannot start any token", id="tab"),
        pytest.param("a: &x {b: *x}\n", " an anchor contains itself; expected a finite mapping.", id="recursive"),
        pytest.param("a: &x [*x]\n", " an anchor contains itself; expected a finite mapping.", id="recursive-list"),
        pytest.param("a: " + "[" * 2000 + "]" * 2000, " is nested too deeply", id="deep"),
        pytest.param("a: *x\n", ", line 1, column 4: found undefined alias 'x'", id="alias"),
        pytest.param("null: 1\n", "unsupported key or value (Incompatible key type 'NoneType')", id="null-key"),
        pytest.param("3: 1\n", " has the key 3, a YAML int; expected a name. Quote it.", id="int-key"),
        pytest.param("yes: 1\n", " has the key True, a YAML bool; expected a name. Quote it.", id="bool-key"),
        pytest.param("? [a]\n: 1\n", ", line 1, column 3: found unhashable key", id="list-key"),
        pytest.param("a: !!set {b}\n", "unsupported key or value at 'a' (Value 'set'", id="set"),
        pytest.param("a: !!python/name:os.system\n", "could not determine a constructor for the tag", id="python"),
        pytest.param("a: 1\n---\nb: 2\n", ", line 2, column 1: but found another document", id="documents"),
        pytest.param("a: {b: 1\n", ", line 2, column 1: expected ',' or '}'", id="brace"),
        pytest.param("a: x: y\n", ", line 1, column 5: mapping values are not allowed here", id="colon"),
        pytest.param('a: "\\${x}"\n', r"(in double quotes, write \\${ for a literal ${, or use single", id="escape"),
        pytest.param("a: '${'\n", r"is '${', but ${...} refers to another setting and this is not a valid", id="open"),
    ],
)
def test_a_file_that_is_no_mapping_in_yaml_is_named_with_the_fix(tmp_path, kind, content, message):
    error = load_error(tmp_path, {f"env/{kind}.yml": content, f"base/{kind}.yml": "x: {y: 1}"}, kind)
    assert error.startswith(f"{tmp_path}/env/{kind}.yml")
    assert message in error


def test_empty_files_and_a_byte_order_mark_are_accepted(tmp_path):
    files = {"base/parameters.yml": "\ufeffa: 1\n", "env/parameters.yml": "", "env/parameters_b.yml": "# nothing\n"}
    assert load(tmp_path, files) == {"a": 1}


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ("tasks: {x: {kind: a}}", "tasks: {x: {kind: a}}", "tasks.x.kind"),
        ("seed: 1", "seed: 2", "seed"),
        ("tasks: {x: {}}", "tasks: null", "tasks"),
        ("tasks: {x: {text: '${y}'}}", "tasks: {x: {text: b}}", "tasks.x.text"),
    ],
)
def test_a_key_in_two_files_of_a_folder_is_reported_with_both_files(tmp_path, first, second, key):
    message = load_error(tmp_path, {"env/parameters.yml": first, "env/parameters_more.yml": second})
    files = f"{tmp_path}/env/parameters.yml and {tmp_path}/env/parameters_more.yml"
    assert message.startswith(f"both {files} set {key!r}; expected each key in one file")


def test_a_block_may_be_in_two_files_of_a_folder(tmp_path):
    files = {"env/parameters.yml": "tasks: {x: {a: 1}}", "env/parameters_more.yml": "tasks: {y: {a: 1}}"}
    assert load(tmp_path, files) == {"tasks": {"x": {"a": 1}, "y": {"a": 1}}}


def test_a_path_that_is_no_file_is_reported(tmp_path):
    (tmp_path / "env/parameters.yml").mkdir(parents=True)
    assert load_error(tmp_path, {}).startswith(f"{tmp_path}/env/parameters.yml is a folder; expected a YAML file.")
    (tmp_path / "env/parameters.yml").rmdir()
    (tmp_path / "env/parameters.yml").symlink_to("nowhere")
    assert load_error(tmp_path, {}).startswith(f"{tmp_path}/env/parameters.yml is a broken link; expected a YAML file.")


@pytest.mark.parametrize("name", ["tasks.yml", "paramters.yml", "my_parameters.yaml"])
def test_a_file_that_would_never_be_read_is_reported(tmp_path, name):
    message = load_error(tmp_path, {"base/parameters.yml": "a: 1\n", f"env/{name}": "b: 1\n"})
    assert f"env/{name} is never read; expected a name that begins with catalog, credentials, " in message
    assert message.endswith(f"Rename it, for example to parameters_{name}.")
    others = {f"env/{name}": "" for name in ("mlflow.yml", "dvc.yaml", "catalog_more.yml", ".hidden.yml", "notes.md")}
    (tmp_path / "env" / name).unlink()
    assert load(tmp_path, {"base/parameters.yml": "a: 1\n", **others}) == {"a": 1}


def test_a_missing_folder_or_file_is_reported(tmp_path):
    with pytest.raises(ConfigurationError, match=r"base does not exist; expected the configuration of an environment"):
        ConfigLoader(str(tmp_path), env="env", **CONFIG_LOADER_ARGS)["parameters"]
    message = load_error(tmp_path, {"base/parameters.yml": "a: 1"}, "catalog")
    assert f"neither 'base' nor 'env' in {tmp_path} has a catalog.yml; expected one." in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("price: ${text}", "'text' is not a setting"),
        ("${a.b.c}", "'a.b.c' is not a setting"),
        ("${env:HOME}", "Unsupported interpolation type env"),
        ("${globals:x}", "Globals key 'x' not found"),
        ("x ${a b}", "this is not a valid reference"),
    ],
)
@pytest.mark.parametrize("place", ["base/parameters.yml", "env/parameters_tasks.yml", "--params"])
def test_a_reference_to_no_setting_says_how_to_write_a_dollar_sign(tmp_path, place, text, reason):
    files = {"base/parameters.yml": "seed: 1", **({} if place == "--params" else {place: f"task: {{text: '{text}'}}"})}
    params = {"task": {"text": text}} if place == "--params" else None
    message = load_error(tmp_path, files, params=params)
    assert (
        f"{place}: the setting 'task.text' is {text!r}, but ${{...}} refers to another setting and {reason}" in message
    )
    escaped = text.replace("${", "\\${")
    assert message.endswith(f"For a literal ${{, write \\${{ in single quotes: '{escaped}'.")


def test_a_setting_that_refers_to_itself_is_reported(tmp_path):
    assert "ecursive interpolation detected" in load_error(tmp_path, {"base/parameters.yml": "a: ${b}\nb: ${a}\n"})


@pytest.mark.parametrize("other", ["other=1", ""])
@pytest.mark.parametrize("place", ["base/parameters.yml", "env/parameters_tasks.yml", "--params"])
def test_an_escaped_dollar_sign_is_literal_wherever_it_is_written(tmp_path, place, other):
    files = {"base/parameters.yml": "seed: 1"}
    params: dict[str, Any] = {"seed": 2} if other else {}
    if place == "--params":
        params["task"] = {"text": r"price: \${text}"}
    else:
        files[place] = "task: {text: 'price: \\${text}', also: $5, twice: \"\\\\${text}\"}"
    parameters = load(tmp_path, files, params=params)
    assert parameters["task"]["text"] == "price: ${text}"
    assert parameters["task"].get("twice", "${text}") == "${text}"
    assert parameters["task"].get("also", "$5") == "$5"


def test_references_are_resolved_after_environments_and_params_are_merged(tmp_path):
    files = {"base/parameters.yml": "steps: 1\na: {x: '${steps}', y: 0}", "env/parameters.yml": "b: {x: '${steps}'}"}
    assert load(tmp_path, files, params={"steps": 3, "a": {"y": 4}}) == {
        "steps": 3,
        "a": {"x": 3, "y": 4},
        "b": {"x": 3},
    }


def test_every_block_but_the_tasks_is_merged_key_by_key(tmp_path):
    files = {
        "base/parameters.yml": "training: {learning_rate: 1.0, precision: fp32}\ntasks: {x: {kind: a}}\npreset: t5",
        "env/parameters.yml": "training: {learning_rate: 2.0}\nbackbone: {path: p}\npreset: encoder",
        "env/parameters_tasks.yml": "tasks: {y: {kind: b}}",
    }
    tree = load(tmp_path, files, params={"training": {"seed": 1}, "tasks": {"y": {"text": "c"}}})
    assert tree["tasks"] == {"y": {"kind": "b", "text": "c"}}
    expected = {"learning_rate": 2.0, "precision": "fp32", "seed": 1, "temperature": 10}
    assert tree["training"] == PRESETS["encoder"]["training"] | expected
    assert tree["preset"] == "encoder"


def test_the_preset_replaces_base_but_not_base_as_the_environment(tmp_path):
    files = {"base/parameters.yml": "training: {learning_rate: 1.0}\nbackbone: {path: p}\npreset: t5"}
    env = load(tmp_path, files | {"env/parameters.yml": "preset: t5"})
    base = ConfigLoader(str(tmp_path), env="base", **CONFIG_LOADER_ARGS)["parameters"]
    assert base["training"]["learning_rate"] == 1.0
    assert env["training"]["learning_rate"] == PRESETS["t5"]["training"]["learning_rate"]


def test_an_environment_without_tasks_does_not_train_those_of_base(tmp_path):
    files = {"base/parameters.yml": "tasks: {x: {kind: a}}", "env/parameters.yml": "seed: 1"}
    message = load_error(tmp_path, files)
    assert message.startswith(f"the files of {tmp_path}/env set no `tasks`; expected a block for each task, because")


def test_what_names_tasks_of_base_is_not_inherited(tmp_path):
    export = "export: {opset: 20, allow_below_majority: [x], label_names: {x: {}}}"
    files = {
        "base/parameters.yml": f"tasks: {{x: {{kind: a}}}}\n{export}",
        "env/parameters.yml": "tasks: {y: {kind: a}}",
    }
    assert load(tmp_path, files)["export"] == {"opset": 20, "tolerance": 1e-4}


def test_local_adds_to_base_and_replaces_its_tasks(tmp_path):
    files = {"base/parameters.yml": "tasks: {x: {kind: a}}\ntraining: {steps: 1, seed: 2}", "env/parameters.yml": ""}
    load(tmp_path, files, params={"tasks": {"z": {}}})
    (tmp_path / "local").mkdir()
    (tmp_path / "local/parameters.yml").write_text("training: {steps: 3}")
    tree = ConfigLoader(str(tmp_path), **CONFIG_LOADER_ARGS)["parameters"]
    assert tree["tasks"] == {"x": {"kind": "a"}}
    assert tree["training"] == {"temperature": 10, "steps": 3, "seed": 2}
    (tmp_path / "local/parameters.yml").write_text("tasks: {y: {kind: b}}")
    assert ConfigLoader(str(tmp_path), **CONFIG_LOADER_ARGS)["parameters"]["tasks"] == {"y": {"kind": "b"}}


def test_the_source_of_each_setting_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "base/parameters.yml": "seed: 1\nbackbone: {path: p}",
        "env/parameters.yml": "preset: encoder",
        "env/parameters_tasks.yml": "tasks: {y: {labels: {0: a}}}",
    }
    load(tmp_path, files)
    params = {"training": {"epochs": 2}}
    loader = ConfigLoader(str(tmp_path), env="env", runtime_params=params, **CONFIG_LOADER_ARGS)
    sources = {name: source for name, _, source in list_values(loader["parameters"], loader.origins)}
    assert sources["seed"] == "base/parameters.yml"
    assert sources["tasks.y.labels.0"] == "env/parameters_tasks.yml"
    assert sources["training.epochs"] == "--params"
    assert sources["training.learning_rate"] == "preset encoder"
    assert sources["training.temperature"] == "library"


def test_kedro_settings_prints_every_setting_with_its_source(monkeypatch):
    monkeypatch.chdir(ROOT)
    project = bootstrap_project(ROOT)
    result = CliRunner().invoke(cli, ["settings", "--env", "questions", "--params", "seed=3"], obj=project)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "seed: 3  # --params" in lines
    assert 'preset: "encoder"  # conf/questions/parameters.yml' in lines
    assert "training.epochs: 10  # preset encoder" in lines
    assert "evaluation.num_beams: 1  # conf/base/parameters.yml" in lines
    assert "training.processes: 1  # library" in lines


def test_kedro_settings_refuses_an_unknown_environment(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(cli, ["settings", "--env", "question"], obj=bootstrap_project(ROOT))
    assert result.exit_code == 1
    assert "unknown environment 'question'; did you mean 'questions'?" in result.output
