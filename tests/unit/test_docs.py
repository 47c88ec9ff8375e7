"""The documents: their commands name things that exist, and their links work; docs/commands.py runs the commands."""

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
from hyperformer.preflight.settings import check_settings
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "commands.py"))
OPERATORS = {"&&", "|"}
"""Shell operators between two commands of a line."""
FROM_LIBRARIES = (
    "Invalid YAML or JSON file", "unable to read line", "codec can't decode byte", "invalid continuation byte",
    "Permission denied", "No space left on device", "Read-only file system",
)  # fmt: skip
"""Quoted texts of Kedro, Python and the operating system."""
VALUES = (
    "question, kind", "question;kind", "abbreviation, description, number, person, place", "accuracy, f1, matthews",
    "ascii", "unknown pipeline", "kedro run --env base, pid 4711 on host, since", "hyperformer verify",
)  # fmt: skip
"""Values without quotes in quoted messages, and a command beside them."""
SHORTEST_PIECE = 15
"""Length from which a literal piece of a quoted message is looked up, in characters."""
LEAST_SHARE = 0.5
"""Share of a piece that must occur in the source; the rest may be a value without quotes."""
COMMANDS = [command for document in SCRIPT["DOCUMENTS"] for command in SCRIPT["commands"](document)]


def arguments_of(program: str) -> list[list[str]]:
    """Return the arguments of every command in the documents that runs a program."""
    lines = [shlex.split(command.text, comments=True) for command in COMMANDS if command.language == "console"]
    runs = [
        list(run) for line in lines for is_operator, run in groupby(line, OPERATORS.__contains__) if not is_operator
    ]
    return [run[run.index(program) + 1 :] for run in runs if program in run]


def option(arguments: list[str], name: str) -> str | None:
    """Return the value of a command-line option, or None if it is absent."""
    return arguments[arguments.index(name) + 1] if name in arguments else None


def test_there_are_commands_of_every_kind_and_few_are_skipped():
    kinds = {command.language for command in COMMANDS}
    assert kinds == {"console", "python", "bash", "yaml"}
    skipped = [command for command in COMMANDS if command.skipped]
    assert 0 < len(skipped) < len(COMMANDS) / 4


def test_every_document_is_read():
    folders = (ROOT, ROOT / "docs", ROOT / "examples")
    documents = {str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*.md")}
    assert set(SCRIPT["DOCUMENTS"]) == documents


@pytest.mark.parametrize("arguments", arguments_of("kedro"), ids=" ".join)
def test_a_run_of_kedro_names_existing_things(arguments, tmp_path):
    configure_project("pipelines")
    assert arguments[0] in ("run", "dvc", "settings")
    if name := option(arguments, "--pipelines"):
        assert name in pipelines
    if tag := option(arguments, "--tags"):
        assert tag in {tag for node in pipelines["__default__"].nodes for tag in node.tags}
    for kind in ("--nodes", "--from-nodes", "--to-nodes"):
        if names := option(arguments, kind):
            assert set(names.split(",")) <= {node.name for node in pipelines["__default__"].nodes}
    env = option(arguments, "--env") or "base"
    conf = ROOT / "conf"
    blocks = {Path(c.text.splitlines()[0][2:]): c.text for c in COMMANDS if c.language == "yaml"}
    if not (conf / env).is_dir():
        conf = tmp_path / "conf"
        conf.mkdir()
        (conf / "base").symlink_to(ROOT / "conf" / "base")
        for path, text in blocks.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
    changed = _split_params(None, None, option(arguments, "--params") or "")
    try:
        parameters = ConfigLoader(str(conf), env=env, runtime_params=changed, **CONFIG_LOADER_ARGS)["parameters"]
    except MissingConfigException:
        pytest.fail(f"there is no environment {env}")
    check_settings(parameters)


def test_values_that_dvc_commands_set_are_settings():
    settings = [value for arguments in arguments_of("dvc") for flag, value in pairwise(arguments) if flag == "-S"]
    assert settings
    for setting in settings:
        file, _, change = setting.partition(":")
        tree = yaml.safe_load((ROOT / file).read_text())
        for key in change.partition("=")[0].split("."):
            tree = tree[key]


def test_subcommands_of_hyperformer_exist(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    known = capsys.readouterr().out
    runs = arguments_of("hyperformer")
    assert len(runs) > 10
    assert all(re.search(rf"\b{arguments[0]}\b", known) for arguments in runs)


def test_python_is_python():
    for command in COMMANDS:
        if command.language == "python":
            ast.parse(command.text, f"{command.document}:{command.line}")


def test_links_lead_somewhere():
    for document in SCRIPT["DOCUMENTS"]:
        text = (ROOT / document).read_text()
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)]+)?\)", text):
            file = ((ROOT / document).parent / target) if target else ROOT / document
            assert file.exists(), f"{document}: {target}"
            if anchor and file.suffix == ".md":
                headings = re.findall(r"(?m)^#+ (.*)$", file.read_text())
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor[1:] in slugs, f"{document}: {target}{anchor}"


def read_quoted_messages(document: str) -> list[str]:
    """Return the code in the columns `message` and `what happens` of a document's tables."""
    messages, column = [], None
    for line, following in pairwise((ROOT / document).read_text().splitlines()):
        columns = re.split(r" ?\| ?", line)
        if following.startswith("| ---"):
            column = next((columns.index(name) for name in ("message", "what happens") if name in columns), None)
        elif column is not None and line.startswith("|") and not line.startswith("| ---"):
            messages += [match[2] for match in re.finditer(r"(`+)(.+?)\1(?!`)", columns[column])]
    return messages


def split_into_pieces(message: str) -> list[str]:
    """Return the clauses of a quoted message, split at `…`, quoted values, numbers and texts of libraries."""
    others = "|".join(map(re.escape, FROM_LIBRARIES + VALUES))
    pieces = re.split(rf"…|(?<!\w)'\S[^']*'(?!\w)|\S*\w[./]\w\S*|\b\d\S*|[;.] |[()]|{others}", message)
    return [piece for piece in pieces if len(piece) >= SHORTEST_PIECE]


def list_windows(text: str, size: int) -> list[str]:
    """Return all substrings of a size."""
    return [text[start : start + size] for start in range(len(text) - size + 1)]


def read_source_strings() -> list[str]:
    """Return the string constants and the literal parts of f-strings in the code, without docstrings."""
    trees = [ast.parse(path.read_text()) for folder in ("src", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [node.value for node in constants if isinstance(node.value, str)]


@pytest.mark.parametrize("document", ["docs/troubleshooting.md", "docs/reliability.md"])
def test_quoted_messages_are_those_of_the_code(document):
    source = "\n".join(read_source_strings())
    messages = read_quoted_messages(document)
    assert len(messages) > 20
    outdated = [
        (piece, message)
        for message in messages
        for piece in split_into_pieces(message)
        if not any(part in source for part in list_windows(piece, round(LEAST_SHARE * len(piece))))
    ]
    assert not outdated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```ruby\nputs 1\n```\n", "got a fence 'ruby'"),
        ("<!-- skip make tset: long -->\n```console\n$ make test\n```\n", "no command begins with 'make tset'"),
        ("<!-- jump all: long -->\n```console\n$ make test\n```\n", "got a fence 'console' under '<!-- jump all"),
    ],
)
def test_an_unknown_mark_or_fence_is_refused(tmp_path, text, message):
    (tmp_path / "x.md").write_text(f"words\n{text}")
    with pytest.raises(ValueError, match=re.escape(message)):
        list(SCRIPT["commands"](str(tmp_path / "x.md")))


def test_commands_are_parsed_with_their_marks(tmp_path):
    (tmp_path / "x.md").write_text(
        "<!-- skip b: long -->\n<!-- in place -->\n```console\n$ a 1 # one\n  more\n$ b\n```\n```\ndrawn\n```\n"
        "```yaml\n# conf/x/y.yml\na: 1\n```\n```yaml\nb: 1\n```\n"
    )
    commands = list(SCRIPT["commands"](str(tmp_path / "x.md")))
    assert [(command.line, command.text, command.folder, command.skipped) for command in commands] == [
        (4, "a 1 # one\n  more", "place", ""), (6, "b", "place", "long"), (12, "# conf/x/y.yml\na: 1\n", ".", ""),
    ]  # fmt: skip
