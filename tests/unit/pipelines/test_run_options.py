"""The options of `kedro run`: every wrong name or value is one sentence before the run starts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from kedro.framework.cli.utils import KedroCliError
from kedro.framework.project import configure_project

from pipelines import cli

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def project() -> None:
    configure_project("pipelines")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record the options of runs that would start, instead of starting them."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("KEDRO_ENV", raising=False)
    runs: list[dict[str, Any]] = []
    monkeypatch.setattr(cli.kedro_run, "callback", lambda **options: runs.append({**options, "folder": Path.cwd()}))
    return runs


def run(arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, ["run", *shlex.split(arguments)])


def assert_refused(result: Result, message: str) -> None:
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit), result.exception
    assert message in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--env tset", "Error: unknown environment 'tset'; did you mean 'test'?"),
        ("--pipelines trian", "unknown pipeline 'trian'; did you mean 'train'?"),
        ("--tags reprot", "unknown tag 'reprot'; did you mean 'report'?"),
        ("--nodes train_modle", "unknown node 'train_modle'; did you mean 'train_model'?"),
        ("--nodes pretrain_backbone", "is not in the pipeline __default__; expected one of its nodes. Choose a"),
        ("--from-nodes encode_row", "unknown node 'encode_row'; did you mean 'encode_rows'?"),
        ("--to-nodes x", "unknown node 'x'; expected one of adapt_model,"),
        ("--from-inputs rowss", "unknown dataset 'rowss'; did you mean 'rows'?"),
        ("--to-outputs checkpont", "unknown dataset 'checkpont'; did you mean 'checkpoint'?"),
        ("--to-outputs params:seed", "unknown dataset 'params:seed'; expected one of"),
        ("--to-outputs corpus", "is not in the pipeline __default__; expected one of its datasets. Choose a pipeline"),
        ("--namespaces a", "unknown namespace 'a'; expected none"),
        ("--tags pretrain", "no node of the pipeline __default__ matches --tags; expected at least one."),
        ("--nodes train_model --tags report", "matches --tags and --nodes; expected at least one."),
        ("--from-nodes write_report --to-nodes prepare_rows", "matches --from-nodes and --to-nodes; expected"),
        ("--runner ParalelRunner", "unknown runner 'ParalelRunner'; did you mean 'ParallelRunner'?"),
        ("--runner nowhere.Runner", "cannot import the runner 'nowhere.Runner'; expected one of ParallelRunner"),
        ("--runner kedro.io.DataCatalog", "cannot import the runner 'kedro.io.DataCatalog'"),
        ("--runner .x", "cannot import the runner '.x'"),
        ("--runner-params x", "Item `x` must contain a key and a value"),
        ("--runner-params max_worker=2 --runner ThreadRunner", "did you mean 'max_workers'?"),
        ("--runner-params max_workers=-1 --runner ThreadRunner", "(max_workers should be positive). Change it."),
        ("--runner-params max_workers=x --runner ThreadRunner", "invalid --runner-params {'max_workers': 'x'}"),
        ("--runner-params is_async=maybe", "(is_async is not a boolean)"),
        ("--load-versions x", "Error: Expected the form of 'load_versions'"),
        ("--load-versions rowz:2024", "unknown dataset 'rowz'; did you mean 'rows'?"),
        ("--conf-source nowhere", "Path 'nowhere' does not exist."),
        ("--conf-source pyproject.toml", "pyproject.toml is not a folder; expected the configuration."),
        ("--config nowhere.yml", "File 'nowhere.yml' does not exist."),
        ("--config conf", "File 'conf' is a directory."),
        ("--params seed", "Item `seed` must contain a key and a value separated by `=`."),
        ("--params =1", "Parameter key cannot be an empty string."),
        ("--params seed=[1", "cannot parse 'seed=[1' (while parsing a flow sequence); expected name=value"),
        ("--params seed='${x'", "cannot parse 'seed=${x'"),
        ("--params seed=!!python/name:os.system", "could not determine a constructor for the tag"),
        ("--envv test", "No such option '--envv'"),
    ],
)
def test_a_wrong_option_is_one_sentence(started, arguments, message):
    assert_refused(run(arguments), message)
    assert started == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run: {tags: [a, b]}", "the option 'tags' in FILE is ['a', 'b']; expected a text."),
        ("run: {tags: null}", "the option 'tags' in FILE is None; expected a text."),
        ("run: {env: 3}", "the option 'env' in FILE is 3; expected a text."),
        ("run: {params: 3}", "the option 'params' in FILE is 3; expected a mapping."),
        ("run: {is_async: 3}", "the option 'is_async' in FILE is 3; expected a boolean."),
        ("run: {load_versions: {rows: 3}}", "the option 'load_versions' in FILE is {'rows': 3}; expected a text."),
        ("run: {tag: x}", "unknown option 'tag' in FILE; did you mean 'tags'?"),
        ("run: {1: 3}", "unknown option '1' in FILE; expected one of"),
        ("run:", "FILE has no mapping `run`; expected the options of kedro run in it."),
        ("x: 1", "FILE has no mapping `run`"),
        ("- a", "FILE is a list; expected a mapping."),
        ("run: {tags: train", "FILE, line 1, column 18: expected ',' or '}'"),
        ("run: {pipelines: trian}", "unknown pipeline 'trian'; did you mean 'train'?"),
    ],
)
def test_a_wrong_file_of_options_is_one_sentence(started, tmp_path, content, message):
    file = tmp_path / "options.yml"
    file.write_text(content)
    assert_refused(run(f"--config {file}"), message.replace("FILE", str(file)))
    assert started == []


def test_right_options_start_a_run(started, tmp_path):
    (tmp_path / "options.yml").write_text("run: {tags: 'train, report', env: test, params: {seed: 3}}")
    assert run(f"--config {tmp_path / 'options.yml'} --runner ThreadRunner --nodes train_model").exit_code == 0
    assert (started[0]["tags"], started[0]["env"]) == (["train", "report"], "test")
    assert started[0]["params"] == {"seed": 3}


def test_the_environment_of_the_shell_is_checked(monkeypatch):
    monkeypatch.setenv("KEDRO_ENV", "tset")
    assert_refused(run(""), "unknown environment 'tset'; did you mean 'test'?")


def test_a_dollar_sign_in_params_may_be_escaped(started):
    assert run(r"""--params "tasks.x.text='price: \${text}'" """).exit_code == 0
    assert started[0]["params"] == {"tasks": {"x": {"text": r"price: \${text}"}}}


def test_an_error_of_kedros_command_is_one_sentence(monkeypatch):
    def fail(**_: Any) -> None:
        raise KedroCliError("two options\ncannot be used together")

    monkeypatch.setattr(cli.kedro_run, "callback", fail)
    assert run("").output == "Error: two options cannot be used together\n"


def test_an_error_of_a_bug_keeps_its_traceback(monkeypatch):
    def fail(**_: Any) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(cli.kedro_run, "callback", fail)
    assert isinstance(run("").exception, KeyError)


def test_a_run_from_a_subfolder_runs_in_the_projects_folder(started, tmp_path, monkeypatch):
    from kedro.framework.startup import bootstrap_project

    folder = ROOT / "src"
    monkeypatch.chdir(folder)
    context = click.Context(cli.cli, obj=bootstrap_project(ROOT))
    command = cli.cli.commands["run"]
    with context.scope(), command.make_context("run", ["--conf-source", "../conf"], parent=context) as inner:
        command.invoke(inner)
    assert started[0]["folder"] == ROOT
    assert started[0]["conf_source"] == str(ROOT / "conf")
    assert Path.cwd() == folder
