"""Draw docstrings, error messages and sentences of documents, to be read by someone new to the project.

python tests/sample_prose.py [--seed 0] [--count 100]
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "unit"))

from test_plain_language import ROOT, iterate_docstrings, list_files, parse_file

BLOCK = re.compile(r"\s*([-*|]|\d+\.) ")
"""The beginning of a list item or a table row."""


def iterate_errors(tree: ast.AST, source: str) -> Iterator[tuple[int, str]]:
    """Yield the messages that code raises, as they are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name = node.exc.func.id if isinstance(node.exc.func, ast.Name) else ""
            if name.endswith("Error"):
                yield node.lineno, ast.get_source_segment(source, node.exc.args[-1]) or ""


def iterate_sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yield the sentences and table rows of a Markdown document, without fences, comments and rows of numbers."""
    blocks: list[tuple[int, str]] = []
    fenced = continues = False
    for line, content in enumerate(text.splitlines(), start=1):
        fenced ^= content.startswith("```")
        is_prose = not fenced and not content.startswith(("```", "<", "#"))
        if continues and is_prose and content.strip() and not BLOCK.match(content):
            blocks[-1] = (blocks[-1][0], f"{blocks[-1][1]} {content.strip()}")
        elif is_prose and sum(map(str.isalpha, content)) > len(content) / 2:
            blocks.append((line, content.strip()))
        continues = is_prose and bool(content.strip()) and bool(blocks) and not content.startswith("|")
    for line, block in blocks:
        parts = [block] if block.startswith("|") else re.split(r"(?<=[.!?]) (?=[A-Z`*])", block)
        yield from ((line, part) for part in parts if len(part.split()) > 3)


def list_places() -> list[str]:
    """Return every docstring, error message and sentence as `file:line: text`."""
    result = []
    for file in list_files():
        text = (ROOT / file).read_text(encoding="utf-8")
        if file.suffix == ".md":
            result += [f"{file}:{line}: {sentence}" for line, sentence in iterate_sentences(text)]
        elif file.suffix == ".py" and file.parts[0] != "tests":
            tree = parse_file(file)
            result += [f"{file}:{line}: {' '.join(doc.split())}" for line, doc in iterate_docstrings(tree)]
            result += [f"{file}:{line}: {' '.join(message.split())}" for line, message in iterate_errors(tree, text)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    print(*random.Random(arguments.seed).sample(list_places(), arguments.count), sep="\n")


if __name__ == "__main__":
    main()
