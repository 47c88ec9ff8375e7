"""The ten likely mistakes of docs/troubleshooting.md end in the messages that the page quotes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from processes import ROOT, copy_project, kedro

FEW_ROWS = "embedded.train=20,embedded.validation=10,embedded.test=10"
MISTAKES: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "`label_colum:`": (lambda conf: conf.replace("label_column:", "label_colum:"), str),
    '`text: "{text}"`': (lambda conf: conf.replace("{question}", "{text}"), str),
    "a label that is missing": (lambda conf: re.sub(r"\n *thing: thing", "", conf), str),
    "`path: examples/question`": (lambda conf: conf.replace("examples/questions", "examples/question"), str),
    "one file and no": (lambda conf: re.sub(r"\n *splits: .*", "", conf), str),
    "an answer `no`": (lambda conf: conf.replace("thing: thing", "thing: no"), str),
    "`training:` with both": (
        lambda conf: yaml.safe_dump(yaml.safe_load(conf) | {"training": {"steps": 5, "epochs": 1}}),
        str,
    ),
    "a text that contains a comma": (str, lambda rows: rows.replace("?,", ", please?,", 1)),
    "the default encoding": (str, lambda rows: rows.replace("How", "caf\udce9 How", 1)),
    "`--env question`": (str, str),
}
"""Beginning of a row of the table → changes of the settings and of the rows."""


def quoted_messages() -> dict[str, str]:
    """Return the message of each mistake in the table of the page."""
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    table = page.partition("## Ten likely mistakes")[2].partition("## ")[0]
    quoted = re.findall(r"^\| (.+?) \| (``|`)(.+?)\2(?:,.*)? \|$", table, re.MULTILINE)
    return {row: message for row, _, message in quoted}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project in which nothing has run."""
    return copy_project(tmp_path_factory.mktemp("mistakes"))


def test_the_page_has_these_mistakes() -> None:
    assert [next(key for key in MISTAKES if row.startswith(key)) for row in quoted_messages()] == list(MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_likely_mistake_has_the_message_of_the_page(project: Path, mistake: str) -> None:
    shutil.rmtree(project / "examples", ignore_errors=True)
    shutil.copytree(ROOT / "examples/questions", project / "examples/questions")
    change_conf, change_rows = MISTAKES[mistake]
    rows, conf = project / "examples/questions/train.csv", project / "conf/questions/parameters.yml"
    conf.write_text(change_conf((ROOT / "conf/questions/parameters.yml").read_text()))
    rows.write_text(change_rows(rows.read_text()), errors="surrogateescape")
    env = "question" if "--env" in mistake else "questions"
    result = kedro(project, "--pipelines", "preprocess", "--params", FEW_ROWS, env=env)
    [expected] = [message for row, message in quoted_messages().items() if row.startswith(mistake)]
    assert result.returncode == 1
    if expected.endswith("…"):
        assert result.stderr.startswith(f"Error: {expected[:-1]}")
    else:
        assert result.stderr == f"Error: {expected}\n"
