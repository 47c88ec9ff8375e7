"""CITATION.cff describes this version of the software, and the paper as the README does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_software_is_that_of_pyproject(citation):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["version"], citation["license"]) == (
        project["name"], project["version"], project["license"],
    )  # fmt: skip


def test_the_paper_is_that_of_the_readme(citation):
    paper = citation["preferred-citation"]
    entry = dict(re.findall(r"(?m)^  (\w+) += \{(.*)\},?$", (ROOT / "README.md").read_text()))
    assert paper["title"] == entry["title"]
    names = (f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert " and ".join(names) == entry["author"]
    assert (str(paper["year"]), f"{paper['start']}--{paper['end']}") == (entry["year"], entry["pages"])
    (identifier,) = paper["identifiers"]
    assert identifier["value"].removeprefix("arXiv:") == Path(entry["url"]).name
