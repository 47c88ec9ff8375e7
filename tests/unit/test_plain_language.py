"""The words that prose and names avoid, in everything that the project writes."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STYLE = ROOT.parent / "shared" / "STYLE.md"
PHRASES = (
    "parted",
    "in backbones",
    "stands twice",
    "anew",
    "told apart",
    "so many",
    "goes on",
    "of like length",
    "mend",
    "the walk",
    "a state of other work",
    "closed task",
    "open task",
    "graded task",
    "processor",
    "sealed",
)
"""Not in documents, docstrings, errors and comments."""
NAMES = (
    "found",
    "said",
    "told",
    "given",
    "own",
    "one",
    "made",
    "anew",
    "words",
    "cell",
    "cells",
    "contender",
    "contenders",
)
"""Not names of variables, parameters, attributes, functions, classes and modules."""
FOLDERS = (".github", "benchmarks", "conf", "docs", "examples", "experiments", "pipelines", "src", "tests")
ENDINGS = (".py", ".md", ".yml", ".yaml", ".cff", ".toml", ".html", ".jinja", ".mjs", ".js", "Makefile")
GENERATED = {"node_modules", "work", "__pycache__"}
"""Folders that are not part of the project."""
QUESTIONS = ("What", "Which", "Whether", "How")
ALLOWED_QUESTIONS = 8
ALLOWED = {Path("tests/unit/test_plain_language.py")}
ALLOWED_PHRASES = {
    Path("src/hyperformer/embedded/objectives.py"): {"mend"},
    Path("tests/unit/embedded/test_corpus.py"): {"mend"},
}
"""File → phrases that are data in it: the shipped backbone was pretrained on these words."""
PHRASE = re.compile(rf"\b(?:{'|'.join(PHRASES)})(?:s|ed|ing)?\b", re.IGNORECASE)


def list_files() -> list[Path]:
    """Return the files of the project with prose or names, relative to its root."""
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*")]
    files += [*ROOT.iterdir(), ROOT / "data/06_models/backbone/README.md"]
    paths = [file.relative_to(ROOT) for file in files if file.name.endswith(ENDINGS) and file.is_file()]
    return sorted(path for path in paths if not GENERATED & set(path.parts))


def iterate_prose(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a document, or the comments and strings of Python code, with their line numbers."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds:
            yield token.start[0], " ".join(token.string.split())


def iterate_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names that code defines, with their line numbers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def iterate_docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of code, with the line numbers of what they document."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if documented and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def parse_file(file: Path) -> ast.AST:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def find_banned(files: list[Path]) -> list[str]:
    """Return each place with a banned phrase or name as `file:line: text`."""
    hits = []
    for file in files:
        if file in ALLOWED:
            continue
        matches = [(line, match[0]) for line, text in iterate_prose(file) for match in PHRASE.finditer(text)]
        hits += [f"{file}:{line}: {phrase}" for line, phrase in matches if phrase not in ALLOWED_PHRASES.get(file, ())]
        if file.suffix == ".py":
            hits += [f"{file}: {file.stem}"] if file.stem in NAMES else []
            hits += [f"{file}:{line}: name {name}" for line, name in iterate_names(parse_file(file)) if name in NAMES]
    return hits


def find_questions(files: list[Path]) -> list[str]:
    """Return each docstring that opens with a question word as `file:line: text`."""
    return [
        f"{file}:{line}: {text.splitlines()[0]}"
        for file in files
        if file.suffix == ".py"
        for line, text in iterate_docstrings(parse_file(file))
        if text.split()[0] in QUESTIONS
    ]


def test_no_banned_phrase_or_name_is_used():
    assert find_banned(list_files()) == []


def test_docstrings_say_what_a_thing_does():
    assert len(find_questions(list_files())) <= ALLOWED_QUESTIONS, "\n".join(find_questions(list_files()))


def test_a_banned_phrase_and_a_banned_name_are_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "code.py").write_text('def found(*, own):\n    """What it mends."""\n    self.said = 1  # goes on\n')
    file = Path("code.py")
    assert sorted(find_banned([file])) == [
        "code.py:1: name found",
        "code.py:1: name own",
        "code.py:2: mends",
        "code.py:3: goes on",
        "code.py:3: name said",
    ]
    assert find_questions([file]) == ["code.py:1: What it mends."]


@pytest.mark.skipif(not STYLE.is_file(), reason="needs the team's STYLE.md, beside the project")
def test_the_lists_are_those_of_the_style_guide():
    text = " ".join(STYLE.read_text(encoding="utf-8").split())
    phrases, listed = re.search(
        r"\*\*A test bans in prose\*\*[^:]*: (.*?)\. \*\*As names\*\*[^:]*: (.*?)\.", text
    ).groups()
    assert tuple(re.findall(r"`([^`]+)`", phrases)) == PHRASES
    assert tuple(re.findall(r"`([^`]+)`", listed)) == NAMES
