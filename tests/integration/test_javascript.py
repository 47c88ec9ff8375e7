"""The same bundle in Node and in a browser: the same answers, the same tokens, the same cuts."""

from __future__ import annotations

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

from hyperformer.runtime import load

HERE = Path(__file__).parents[2] / "docs" / "javascript"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
TASKS = list(task_settings())
ODD = ["</s> good", "Ünïcode № ½ \t 12345 “q” <extra_id_0>", "word, 3 " * 60, "x"]

pytestmark = pytest.mark.skipif(
    not shutil.which("node") or not (HERE / "node_modules").is_dir(),
    reason="needs Node and the packages of docs/javascript: make javascript",
)


@pytest.fixture(scope="module")
def asked(toy_rows):
    from hyperformer.data import read_rows

    columns = {name: re.findall(r"{(\w+)}", task["text"]) for name, task in task_settings().items()}
    found = {name: list(read_rows(toy_rows, name, "validation"))[:8] for name in TASKS}
    return {
        name: [{one: row[one] for one in columns[name]} for row in rows]
        + [dict.fromkeys(columns[name], words) for words in ODD]
        for name, rows in found.items()
    }


def same(found, expected, near=1e-4):
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other.label
        assert one["truncated"] == other.truncated
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=near)
        assert one.get("value") == (None if other.value is None else pytest.approx(other.value, abs=10 * near))


@pytest.mark.parametrize("task", TASKS)
def test_node_answers_as_the_runtime(bundles, asked, task):
    command = ["node", HERE / "answer.mjs", bundles / task]
    given = "\n".join(map(json.dumps, asked[task]))
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    same(map(json.loads, done.stdout.splitlines()), load(bundles / task).answer(asked[task]))


def test_two_texts_are_paired_and_cut_as_by_the_runtime(encoder_bundles):
    bundle = load(encoder_bundles / "likeness")
    words = "the film is dull and we like a good book " * 4
    lengths = [0, 30, 60, 160]
    rows = [{"a": words[:one], "b": words[:other]} for one in lengths for other in lengths]
    expected = bundle.answer(rows)
    assert 0 < sum(answer.truncated for answer in expected) < len(rows)
    command = ["node", HERE / "answer.mjs", bundle.folder]
    given = "\n".join(map(json.dumps, rows))
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    same(map(json.loads, done.stdout.splitlines()), expected, near=1e-3)  # large random weights make much of rounding


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "model.onnx is not the file that was exported"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 2}'), "the bundle has format 2, expected 3"),
    ],
)
def test_what_is_not_the_bundle_is_refused(bundles, tmp_path, spoil, said):
    folder = shutil.copytree(bundles / "mood", tmp_path / "mood")
    spoil(folder)
    command = ["node", HERE / "answer.mjs", folder]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
@pytest.mark.parametrize("task", ["mood3", "likeness"])
def test_a_browser_answers_as_the_runtime(bundles, asked, task, tmp_path):
    for name in ("index.html", "bundle.mjs", "node_modules"):
        (tmp_path / name).symlink_to(HERE / name)
    (tmp_path / task).symlink_to(bundles / task)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        row = asked[task][0]
        where = f"http://127.0.0.1:{server.server_port}/index.html?task={task}/&row={quote(json.dumps(row))}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command = [BROWSER, *flags, "--virtual-time-budget=30000", "--dump-dom", where]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        server.shutdown()
    found = re.search(r'data-answer="([^"]*)"', done.stdout)
    assert found, done.stdout[-2000:]
    same([json.loads(html.unescape(found[1]))], load(bundles / task).answer([row]))
