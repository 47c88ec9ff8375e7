"""The documents: what they ask a reader to run can be run, as far as words go; docs/commands.py runs it."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import yaml
from kedro.config import MissingConfigException
from kedro.framework.cli.utils import _split_params
from kedro.framework.project import configure_project, pipelines

from hyperformer import cli
from hyperformer.config import check
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "commands.py"))
BETWEEN = {"&&", "|"}
COMMANDS = [command for document in SCRIPT["DOCUMENTS"] for command in SCRIPT["commands"](document)]


def words(program: str) -> list[list[str]]:
    """The words after a program's name, of every line that runs it."""
    told = [shlex.split(command.text, comments=True) for command in COMMANDS if command.language == "console"]
    parts = [list(part) for line in told for between, part in groupby(line, BETWEEN.__contains__) if not between]
    return [part[part.index(program) + 1 :] for part in parts if program in part]


def option(given: list[str], name: str) -> str | None:
    return given[given.index(name) + 1] if name in given else None


def test_there_are_commands_of_every_kind_and_few_are_skipped():
    kinds = {command.language for command in COMMANDS}
    assert kinds == {"console", "python", "bash", "yaml"}
    skipped = [command for command in COMMANDS if command.skipped]
    assert 0 < len(skipped) < len(COMMANDS) / 4


def test_every_document_is_read():
    there = {str(path.relative_to(ROOT)) for place in (ROOT, ROOT / "docs") for path in place.glob("*.md")}
    assert set(SCRIPT["DOCUMENTS"]) == there


@pytest.mark.parametrize("given", words("kedro"), ids=" ".join)
def test_a_run_of_kedro_names_what_there_is(given, tmp_path):
    configure_project("pipelines")
    assert given[0] == "run"
    if name := option(given, "--pipelines"):
        assert name in pipelines
    if tag := option(given, "--tags"):
        assert tag in {tag for node in pipelines["__default__"].nodes for tag in node.tags}
    for kind in ("--nodes", "--from-nodes", "--to-nodes"):
        names = {node.name for node in pipelines["__default__"].nodes} | {"tokens"}
        assert set((option(given, kind) or "tokens").split(",")) <= names
    env = option(given, "--env") or "base"
    conf = ROOT / "conf"
    blocks = {Path(c.text.splitlines()[0][2:]): c.text for c in COMMANDS if c.language == "yaml"}
    if not (conf / env).is_dir():
        conf = tmp_path / "conf"
        conf.mkdir()
        (conf / "base").symlink_to(ROOT / "conf" / "base")
        for place, text in blocks.items():
            (tmp_path / place).parent.mkdir(exist_ok=True)
            (tmp_path / place).write_text(text)
    changed = _split_params(None, None, option(given, "--params") or "")
    try:
        found = ConfigLoader(str(conf), env=env, runtime_params=changed, **CONFIG_LOADER_ARGS)["parameters"]
    except MissingConfigException:
        pytest.fail(f"there is no environment {env}")
    check(found)


def test_what_dvc_is_asked_to_set_is_a_setting():
    settings = [word for given in words("dvc") for one, word in pairwise(given) if one == "-S"]
    assert settings
    for setting in settings:
        file, _, change = setting.partition(":")
        tree = yaml.safe_load((ROOT / file).read_text())
        for key in change.partition("=")[0].split("."):
            tree = tree[key]


def test_hyperformers_commands_are_the_shells(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    known = capsys.readouterr().out
    asked = words("hyperformer")
    assert len(asked) > 10
    assert all(re.search(rf"\b{given[0]}\b", known) for given in asked)


def test_python_is_python():
    for command in COMMANDS:
        if command.language == "python":
            ast.parse(command.text, f"{command.document}:{command.line}")


def test_links_lead_somewhere():
    for document in SCRIPT["DOCUMENTS"]:
        text = (ROOT / document).read_text()
        for place, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)]+)?\)", text):
            file = ((ROOT / document).parent / place) if place else ROOT / document
            assert file.exists(), f"{document}: {place}"
            if anchor and file.suffix == ".md":
                heads = re.findall(r"(?m)^#+ (.*)$", file.read_text())
                slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                assert anchor[1:] in slugs, f"{document}: {place}{anchor}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```ruby\nputs 1\n```\n", "got a fence 'ruby'"),
        ("<!-- skip make tset: long -->\n```console\n$ make test\n```\n", "no command begins with 'make tset'"),
        ("<!-- jump all: long -->\n```console\n$ make test\n```\n", "got a fence 'console' under '<!-- jump all"),
    ],
)
def test_a_mark_or_fence_that_is_not_known_is_refused(tmp_path, text, said):
    (tmp_path / "x.md").write_text(f"words\n{text}")
    with pytest.raises(ValueError, match=re.escape(said)):
        list(SCRIPT["commands"](str(tmp_path / "x.md")))


def test_commands_are_taken_apart_as_they_stand(tmp_path):
    (tmp_path / "x.md").write_text(
        "<!-- skip b: long -->\n<!-- in place -->\n```console\n$ a 1 # one\n  more\n$ b\n```\n```\ndrawn\n```\n"
        "```yaml\n# conf/x/y.yml\na: 1\n```\n```yaml\nb: 1\n```\n"
    )
    found = list(SCRIPT["commands"](str(tmp_path / "x.md")))
    assert [(one.line, one.text, one.folder, one.skipped) for one in found] == [
        (4, "a 1 # one\n  more", "place", ""), (6, "b", "place", "long"), (12, "# conf/x/y.yml\na: 1\n", ".", ""),
    ]  # fmt: skip
