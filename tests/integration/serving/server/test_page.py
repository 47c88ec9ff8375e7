"""The page to try tasks: its security policy, and its answers in a browser, which equal those of the bundle."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.resources import files

import pytest
from serving import running

from hyperformer.runtime import load

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HTML = files("hyperformer.serving.server").joinpath("page.html").read_text(encoding="utf-8")
ODD_NAME = "<img src=x onerror=alert(1)> % ä"

in_a_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium")


def test_it_is_served_with_a_policy_that_allows_only_its_own_style_and_script(server):
    status, body, headers = server.send("GET", "/")
    assert (status, body.decode(), headers["content-type"]) == (200, HTML, "text/html; charset=utf-8")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    policy = dict(directive.split(" ", 1) for directive in headers["content-security-policy"].split("; "))
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", HTML, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert policy.pop("connect-src") == "'self'"
    assert policy.pop("img-src") == "data:"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"}
    assert set(policy.values()) == {"'none'"}
    assert "/" not in server.send("GET", "/openapi.json")[1]["paths"]


@pytest.mark.parametrize(
    "never",
    [r"https?:", r"\bsrc\b", "@import", r"url\(", "(inner|outer)HTML", "insertAdjacent", r"\beval\b", r"\bFunction\b",
     r"document\.write", r"\sstyle=", r"\son\w+=", "setAttribute"],
)  # fmt: skip
def test_it_loads_nothing_from_elsewhere_and_creates_no_html_from_data(never):
    assert not re.search(never, HTML)


class Browser:
    """Chromium with one page, controlled with the DevTools protocol over a pipe: JSON messages that end in a zero byte.

    Raises:
        AssertionError: a condition is not met within a minute.
    """

    def __init__(self, profile, stack):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write} >/dev/null 2>&1', BROWSER, *flags]
        process = stack.enter_context(subprocess.Popen(command, pass_fds=(to_read, to_write)))
        stack.callback(process.kill)
        for end in (to_read, to_write):
            os.close(end)
        for end in (self._read, self._write):
            stack.callback(os.close, end)
        self._buffer, self._ids, self._session = b"", itertools.count(1), None
        self.events = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        """Call a method of the protocol, and return its result."""
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            message = self._read_message()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def _read_message(self):
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "Chromium ended"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, script):
        """Run a script, and return its value."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script):
        """Run a script until its value is true, and return the value."""
        end = time.monotonic() + 60
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, self.evaluate("document.body.innerText")
            time.sleep(0.05)
        return value

    def enter(self, texts):
        """Type a text into each field, then press Ctrl+Enter."""
        for number, text in enumerate(texts):
            self.evaluate(f"(document.getElementById('field-{number}').focus(), document.activeElement.select())")
            self.send("Input.insertText", text=text)
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "modifiers": 2}
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **key)

    def answer(self):
        """Return the lines of the answer by name, and the percentages by label in the order shown."""
        self.wait("document.querySelector('#result dl') !== null")
        lines = self.evaluate("[...document.querySelectorAll('#result dt')].map(term => [term.textContent, "
                              "term.nextElementSibling.textContent])")  # fmt: skip
        percentages = self.evaluate("[...document.querySelectorAll('#probabilities .probability')].map(line => "
                                    "[...line.children].map(child => child.textContent))")  # fmt: skip
        return dict(lines), {label: float(percentage.removesuffix(" %")) for label, percentage in percentages}

    def error(self):
        """Return the error that the page shows."""
        return self.wait("document.querySelector('#result .error')?.textContent")

    def requested_urls(self):
        """Return the URLs that the page requested."""
        events = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["request"]["url"] for event in events]

    def console_messages(self):
        """Return the messages of the console, and exceptions."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in kinds]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Browser(tmp_path_factory.mktemp("profile"), stack)


def assert_same(answer, expected):
    lines, percentages = answer
    assert lines["Label"] == expected.label
    assert lines["Truncated"].startswith("yes" if expected.truncated else "no")
    assert re.match(r"\d+ ms", lines["Time"])
    assert percentages == pytest.approx({label: 100 * p for label, p in expected.probabilities.items()}, abs=0.02)
    assert list(percentages.values()) == sorted(percentages.values(), reverse=True)
    value = lines.get("Value")
    assert (value and float(value)) == (expected.value and pytest.approx(expected.value, abs=2e-3))


@in_a_browser
def test_it_answers_as_the_bundle_and_requests_no_other_server(bundles, server, rows, browser):
    browser.events.clear()
    browser.send("Page.navigate", url=f"http://{server.address}/")
    assert browser.wait("document.querySelector('textarea') && location.hash") == "#likeness"
    assert browser.evaluate("[...document.querySelectorAll('label')].map(label => label.textContent)") == [
        "Task",
        "a",
        "b",
    ]
    for task, row in [
        ("likeness", rows["likeness"][0]),
        ("mood3", rows["mood3"][0]),
        ("mood", {"sentence": "a good film " * 60}),
    ]:
        browser.evaluate(f"document.getElementById('task').value = '{task}'")
        browser.evaluate("document.getElementById('task').dispatchEvent(new Event('change'))")
        browser.wait(f"location.hash === '#{task}' && document.querySelectorAll('textarea').length === {len(row)}")
        browser.enter(row.values())
        assert_same(browser.answer(), load(bundles / task).answer([row])[0])
    assert browser.console_messages() == []
    assert {url.split("/v2")[0].split("#")[0].rstrip("/") for url in browser.requested_urls()} == {
        f"http://{server.address}"
    }


@in_a_browser
def test_names_and_labels_are_always_shown_as_text(copied, rows, browser):
    shutil.copytree(copied / "mood", copied / ODD_NAME)
    manifest = copied / ODD_NAME / "manifest.json"
    content = json.loads(manifest.read_text())
    content["labels"][0] = "<script>alert(1)</script>"
    manifest.write_text(json.dumps(content))
    with running(copied) as server:
        browser.events.clear()
        browser.send("Page.navigate", url=f"http://{server.address}/")
        browser.wait("document.querySelector('textarea') !== null")
        browser.evaluate(f"location.hash = '#' + encodeURIComponent({json.dumps(ODD_NAME)})")
        browser.wait("document.querySelector('textarea')?.dataset.column === 'sentence'")
        assert browser.evaluate("document.getElementById('task').value") == ODD_NAME
        browser.enter(rows["mood"][0].values())
        _, percentages = browser.answer()
        assert set(percentages) == set(content["labels"])
        assert browser.evaluate("document.querySelectorAll('img, ol script, dl script').length") == 0
        assert browser.console_messages() == []


@in_a_browser
def test_an_example_is_answered_with_a_click_and_the_programs_ask_the_same(copied, browser):
    manifest = copied / "likeness" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["example"] = {"a": "the film's end", "b": 'a "good" book'}
    manifest.write_text(json.dumps(content))
    with running(copied) as server:
        browser.send("Page.navigate", url=f"http://{server.address}/#mood")
        browser.wait("document.querySelector('textarea') !== null")
        assert browser.evaluate("document.getElementById('example').hidden")
        browser.evaluate("location.hash = '#likeness'")
        browser.wait("document.querySelectorAll('textarea').length === 2 && !document.getElementById('example').hidden")
        browser.evaluate("document.getElementById('example').click()")
        assert_same(browser.answer(), load(copied / "likeness").answer([content["example"]])[0])
        browser.wait("!document.getElementById('programs').hidden")
        for program, command in (("curl", ["bash", "-c"]), ("python", [sys.executable, "-c"])):
            text = browser.evaluate(f"document.getElementById('{program}').textContent")
            output = subprocess.run([*command, text], capture_output=True, text=True, check=True, timeout=60).stdout
            assert "probabilities" in output


@in_a_browser
def test_errors_are_shown(copied, rows, browser):
    (copied / "mood3" / "tokenizer.json").write_text("{}")
    with running(copied, text_bytes=100) as server:
        browser.send("Page.navigate", url=f"http://{server.address}/#mood3")
        assert re.match("The task “mood3” is not ready: .*tokenizer.json is not the file that was", browser.error())
        browser.evaluate("location.hash = '#moood'")
        browser.wait("document.getElementById('result').textContent.includes('Unknown task “moood”')")
        browser.evaluate("location.hash = '#mood'")
        browser.wait("document.querySelector('textarea') !== null")
        browser.enter(["a" * 101])
        assert (
            browser.error()
            == "The server returned an error: a text has 101 bytes; expected at most 100. Shorten the text."
        )
        for name in ("likeness", "mood", "mood3"):
            shutil.rmtree(copied / name)
        for _ in range(2):
            server.app.state.registry.refresh()
        browser.evaluate("document.getElementById('reload').click()")
        browser.wait("document.getElementById('result').textContent.startsWith('The server has no tasks.')")
    browser.evaluate("document.getElementById('reload').click()")
    browser.wait("document.getElementById('result').textContent.startsWith('The server does not respond.')")
