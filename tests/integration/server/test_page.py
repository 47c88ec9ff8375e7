"""The page to try the tasks: what it may do, and that in a browser it answers as the bundle does."""

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
import time
from importlib.resources import files

import pytest
from serving import running

from hyperformer.runtime import load

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HTML = files("hyperformer.server").joinpath("page.html").read_text(encoding="utf-8")
ODD = "<img src=x onerror=alert(1)> % ä"

in_a_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium")


def test_it_is_served_with_a_policy_that_allows_its_own_style_and_script_alone(server):
    status, body, headers = server.ask("GET", "/")
    assert (status, body.decode(), headers["content-type"]) == (200, HTML, "text/html; charset=utf-8")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", HTML, re.DOTALL)
        known = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(f"{kind}-src") == f"'sha256-{known}'"
    assert policy.pop("connect-src") == "'self'"
    assert policy.pop("img-src") == "data:"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"}
    assert set(policy.values()) == {"'none'"}
    assert "/" not in server.ask("GET", "/openapi.json")[1]["paths"]


@pytest.mark.parametrize(
    "never",
    [r"https?:", r"\bsrc\b", "@import", r"url\(", "(inner|outer)HTML", "insertAdjacent", r"\beval\b", r"\bFunction\b",
     r"document\.write", r"\sstyle=", r"\son\w+=", "setAttribute"],
)  # fmt: skip
def test_it_names_no_other_place_and_makes_no_html_of_data(never):
    assert not re.search(never, HTML)


class Browser:
    """Chromium at one page, driven by its DevTools protocol over a pipe: JSON messages, each with a zero byte behind.

    Raises:
        AssertionError: what is waited for does not come within a minute.
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
        self._left, self._ids, self._session = b"", itertools.count(1), None
        self.events = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{part}.enable")

    def send(self, method, **given):
        """What a method gives."""
        number = next(self._ids)
        said = {"id": number, "method": method, "params": given}
        if self._session:
            said["sessionId"] = self._session
        os.write(self._write, json.dumps(said).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def _message(self):
        while b"\0" not in self._left:
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium ended"
            self._left += part
        message, self._left = self._left.split(b"\0", 1)
        return json.loads(message)

    def value(self, script):
        """What a script gives."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script):
        """The first true value of a script."""
        end = time.monotonic() + 60
        while not (found := self.value(script)):
            assert time.monotonic() < end, self.value("document.body.innerText")
            time.sleep(0.05)
        return found

    def enter(self, texts):
        """Types a text into each field, then Ctrl+Enter."""
        for number, text in enumerate(texts):
            self.value(f"(document.getElementById('field-{number}').focus(), document.activeElement.select())")
            self.send("Input.insertText", text=text)
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "modifiers": 2}
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **key)

    def answer(self):
        """The lines of the answer by name, and its probabilities by label in the order shown."""
        self.wait("document.querySelector('#said dl') !== null")
        lines = self.value("[...document.querySelectorAll('#said dt')].map(one => [one.textContent, "
                           "one.nextElementSibling.textContent])")  # fmt: skip
        shares = self.value("[...document.querySelectorAll('#shares .share')].map(one => "
                            "[...one.children].map(part => part.textContent))")  # fmt: skip
        return dict(lines), {label: float(share.removesuffix(" %")) for label, share in shares}

    def told(self):
        """What went wrong, as the page says it."""
        return self.wait("document.querySelector('#said .fault')?.textContent")

    def requested(self):
        """The addresses that the page asked for."""
        found = [one["params"] for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in found]

    def complaints(self):
        """What the console was told, and exceptions."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [one["params"] for one in self.events if one.get("method") in kinds]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Browser(tmp_path_factory.mktemp("profile"), stack)


def same(found, expected):
    lines, shares = found
    assert lines["Label"] == expected.label
    assert lines["Truncated"].startswith("yes" if expected.truncated else "no")
    assert re.match(r"\d+ ms", lines["Time"])
    assert shares == pytest.approx({one: 100 * share for one, share in expected.probabilities.items()}, abs=0.02)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    value = lines.get("Value")
    assert (value and float(value)) == (expected.value and pytest.approx(expected.value, abs=2e-3))


@in_a_browser
def test_it_answers_as_the_bundle_and_asks_nobody_else(bundles, server, rows, browser):
    browser.events.clear()
    browser.send("Page.navigate", url=f"http://{server.address}/")
    assert browser.wait("document.querySelector('textarea') && location.hash") == "#likeness"
    assert browser.value("[...document.querySelectorAll('label')].map(one => one.textContent)") == ["Task", "a", "b"]
    for task, row in [
        ("likeness", rows["likeness"][0]),
        ("mood3", rows["mood3"][0]),
        ("mood", {"sentence": "a good film " * 60}),
    ]:
        browser.value(f"document.getElementById('task').value = '{task}'")
        browser.value("document.getElementById('task').dispatchEvent(new Event('change'))")
        browser.wait(f"location.hash === '#{task}' && document.querySelectorAll('textarea').length === {len(row)}")
        browser.enter(row.values())
        same(browser.answer(), load(bundles / task).answer([row])[0])
    assert browser.complaints() == []
    assert {address.split("/v2")[0].split("#")[0].rstrip("/") for address in browser.requested()} == {
        f"http://{server.address}"
    }


@in_a_browser
def test_names_and_labels_are_text_whatever_they_hold(copied, rows, browser):
    shutil.copytree(copied / "mood", copied / ODD)
    manifest = copied / ODD / "manifest.json"
    described = json.loads(manifest.read_text())
    described["labels"][0] = "<script>alert(1)</script>"
    manifest.write_text(json.dumps(described))
    with running(copied) as server:
        browser.events.clear()
        browser.send("Page.navigate", url=f"http://{server.address}/")
        browser.wait("document.querySelector('textarea') !== null")
        browser.value(f"location.hash = '#' + encodeURIComponent({json.dumps(ODD)})")
        browser.wait("document.querySelector('textarea')?.name === 'sentence'")
        assert browser.value("document.getElementById('task').value") == ODD
        browser.enter(rows["mood"][0].values())
        _, shares = browser.answer()
        assert set(shares) == set(described["labels"])
        assert browser.value("document.querySelectorAll('img, ol script, dl script').length") == 0
        assert browser.complaints() == []


@in_a_browser
def test_what_goes_wrong_is_told_in_a_sentence(copied, rows, browser):
    (copied / "mood3" / "tokenizer.json").write_text("{}")
    with running(copied, text_bytes=100) as server:
        browser.send("Page.navigate", url=f"http://{server.address}/#mood3")
        assert re.match("The task “mood3” is not ready: .*tokenizer.json is not the file that was", browser.told())
        browser.value("location.hash = '#moood'")
        browser.wait("document.getElementById('said').textContent.includes('There is no task “moood”')")
        browser.value("location.hash = '#mood'")
        browser.wait("document.querySelector('textarea') !== null")
        browser.enter(["a" * 101])
        assert browser.told() == "The server says: a text has 101 bytes, expected at most 100; send less of it."
        for name in ("likeness", "mood", "mood3"):
            shutil.rmtree(copied / name)
        for _ in range(2):
            server.app.state.registry.refresh()
        browser.value("document.getElementById('reload').click()")
        browser.wait("document.getElementById('said').textContent.startsWith('The server has no task.')")
    browser.value("document.getElementById('reload').click()")
    browser.wait("document.getElementById('said').textContent.startsWith('The server does not answer.')")
