"""Bundles in Node and in a browser return the answers, tokens and truncation of the Python runtime."""

from __future__ import annotations

import contextlib
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from toys import task_settings

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.text import render
from hyperformer.runtime import load

JAVASCRIPT = Path(__file__).parents[2] / "examples" / "javascript"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
TASKS = list(task_settings())
ODD_TEXTS = ["</s> good", "Ünïcode № ½ \t 12345 “q” <extra_id_0>", "word, 3 " * 60, "x"]

pytestmark = pytest.mark.skipif(
    not shutil.which("node") or not (JAVASCRIPT / "node_modules").is_dir(),
    reason="needs Node and the packages of examples/javascript: make javascript",
)


@pytest.fixture(scope="module")
def rows_by_task(toy_rows):
    from hyperformer.data.storage import read_rows

    columns = {name: re.findall(r"{(\w+)}", task["text"]) for name, task in task_settings().items()}
    validation_rows = {name: list(read_rows(toy_rows, name, "validation"))[:8] for name in TASKS}
    return {
        name: [{column: row[column] for column in columns[name]} for row in rows]
        + [dict.fromkeys(columns[name], text) for text in ODD_TEXTS]
        for name, rows in validation_rows.items()
    }


def assert_same(answers, expected, tolerance=1e-4):
    for answer, other in zip(answers, expected, strict=True):
        assert answer["label"] == other.label
        assert answer["truncated"] == other.truncated
        assert answer["probabilities"] == pytest.approx(other.probabilities, abs=tolerance)
        value = None if other.value is None else pytest.approx(other.value, abs=10 * tolerance)
        assert answer.get("value") == value


@pytest.mark.parametrize("task", TASKS)
def test_node_answers_as_the_runtime(bundles, rows_by_task, task):
    command = ["node", JAVASCRIPT / "answer.mjs", bundles / task]
    lines = "\n".join(map(json.dumps, rows_by_task[task]))
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(map(json.loads, done.stdout.splitlines()), load(bundles / task).answer(rows_by_task[task]))


def test_two_texts_are_paired_and_truncated_as_by_the_runtime(encoder_bundles):
    bundle = load(encoder_bundles / "likeness")
    text = "the film is dull and we like a good book " * 4
    lengths = [0, 30, 60, 160]
    rows = [{"a": text[:first], "b": text[:second]} for first in lengths for second in lengths]
    expected = bundle.answer(rows)
    assert 0 < sum(answer.truncated for answer in expected) < len(rows)
    command = ["node", JAVASCRIPT / "answer.mjs", bundle.folder]
    lines = "\n".join(map(json.dumps, rows))
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(
        map(json.loads, done.stdout.splitlines()), expected, tolerance=1e-3
    )  # large random weights amplify rounding errors


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "model.onnx").write_bytes(b"x"),
            "model.onnx does not match its sha256 in the manifest",
        ),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 2}'), "the bundle has format 2; expected 7"),
    ],
)
def test_a_damaged_bundle_is_refused(bundles, tmp_path, damage, message):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    damage(folder)
    command = ["node", JAVASCRIPT / "answer.mjs", folder]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_bundle_that_is_not_published_answers_only_if_allowed(bundles, tmp_path):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, "published": False}))
    row = {"sentence": "the film is dull"}
    refused, allowed = (
        subprocess.run(
            ["node", JAVASCRIPT / "answer.mjs", *options, folder],
            input=json.dumps(row), capture_output=True, text=True, timeout=120, check=False,
        )
        for options in ([], ["--allow-unpublished"])
    )  # fmt: skip
    assert refused.returncode == 1
    assert "mood is not published, because its model is no better than the majority baseline" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr
    assert_same([json.loads(allowed.stdout)], load(bundles / "mood").answer([row]))


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
@pytest.mark.parametrize("task", ["mood3", "likeness"])
def test_a_browser_answers_as_the_runtime(bundles, rows_by_task, task, tmp_path):
    for name in ("index.html", "bundle.mjs", "node_modules"):
        (tmp_path / name).symlink_to(JAVASCRIPT / name)
    (tmp_path / task).symlink_to(bundles / task)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        row = rows_by_task[task][0]
        url = f"http://127.0.0.1:{server.server_port}/index.html?task={task}/&row={quote(json.dumps(row))}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command = [BROWSER, *flags, "--virtual-time-budget=30000", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        server.shutdown()
    match = re.search(r'data-answer="([^"]*)"', done.stdout)
    assert match, done.stdout[-2000:]
    assert_same([json.loads(html.unescape(match[1]))], load(bundles / task).answer([row]))


ODD_COLUMNS = [
    *("Review Text", "row.label", "a/b", "😀", "__proto__", "toString", " x ", "two\nlines", '"<b>|`', "0", "$&", "ä"),
]
ODD_VALUES = [
    *("", "a dull film", " {x} $& ", "😀", 0, 7.0, -0.0, -3, 0.1, 1e-05, 1e-06, 1e-07, -1.5e-09, 5e-324, 123456.789),
    *(0.1 + 0.2, 1 / 3, 2**53 - 1, -(2**53) + 1, 4503599627370495.5, True, False),
]
REFUSED_VALUES = [None, 2**53, -(2**53), 1e21, 1.7e308, float("inf"), "\ud800", "a\udc00", [1], {"a": 1}, []]
READ_SOURCES = """
import { readFileSync } from "node:fs";
import { Bundle } from "./bundle.mjs";
const { manifests, rows } = JSON.parse(readFileSync(0));
const read = (manifest, row) => {
  try {
    return new Bundle(null, null, null, manifest).source(row);
  } catch (error) {
    return error.message;
  }
};
console.log(JSON.stringify(manifests.map((manifest) => rows.map((row) => read(manifest, row)))));
"""


def read_sources(manifests, rows):
    """Return the texts of each row, or its error, in JavaScript."""
    command = ["node", "--input-type=module", "-e", READ_SOURCES]
    content = json.dumps({"manifests": manifests, "rows": rows}).replace("Infinity", "1e400")
    done = subprocess.run(
        command, input=content, capture_output=True, text=True, timeout=120, check=False, cwd=JAVASCRIPT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_any_column_and_value_has_the_text_of_the_runtime():
    template = "{{x}} " + " ".join(f"{{{column}}}" for column in ODD_COLUMNS) + "\n}}"
    pair = ("{0}{{{0}", "}}{__proto__}{toString}.")
    rows = [
        {column: ODD_VALUES[(number + index) % len(ODD_VALUES)] for index, column in enumerate(ODD_COLUMNS)}
        for number in range(len(ODD_VALUES))
    ]
    whole, pairs = read_sources([{"text": template, "missing": None}, {"text": pair, "missing": None}], rows)
    assert whole == [[render(template, row)] for row in rows]
    assert pairs == [[*render(pair, row)] for row in rows]


@pytest.mark.parametrize("missing", [None, "empty"])
def test_the_same_values_are_refused_as_by_the_runtime(missing):
    def read(row):
        with contextlib.suppress(HyperFormerError):
            return [render("{toString}", row, missing)]

    rows = [{}, {"tostring": "x"}, *({"toString": value} for value in [*ODD_VALUES, *REFUSED_VALUES])]
    [texts] = read_sources([{"text": "{toString}", "missing": missing}], rows)
    assert [text if isinstance(text, list) else None for text in texts] == [read(row) for row in rows]
    assert texts.count([""]) == (4 if missing else 1)


@pytest.mark.parametrize("text", ["{a", "a}", "{a}}", "{a:b}", "{a!r}", "{}", "{ }", "{{a}}{"])
def test_an_invalid_template_is_refused(text):
    [[message]] = read_sources([{"text": text, "missing": None}], [{"a": "x"}])
    assert message.startswith(f"the text {text} has")


def test_labels_may_have_any_name(bundles, tmp_path):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    description = json.loads((folder / "manifest.json").read_text())
    description |= {"labels": ["__proto__", "1\n"]}
    (folder / "manifest.json").write_text(json.dumps(description))
    command = ["node", JAVASCRIPT / "answer.mjs", folder]
    row = {"sentence": "the film is dull"}
    done = subprocess.run(command, input=json.dumps(row), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_same([json.loads(done.stdout)], load(folder).answer([row]))
