"""Progress of long work, on a terminal and elsewhere."""

from __future__ import annotations

import logging
import sys

import pytest

from hyperformer.core import progress
from hyperformer.core.progress import track


def test_without_a_terminal_a_line_is_logged_periodically(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", -1.0)
    with caplog.at_level(logging.INFO, "hyperformer"):
        assert list(track("abc", "reading", 3)) == ["a", "b", "c"]
    assert caplog.messages == ["reading: 1 of 3", "reading: 2 of 3", "reading: 3 of 3"]
    assert capsys.readouterr().err == ""


def test_short_work_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hyperformer"):
        assert list(track(range(3), "reading", 3)) == [0, 1, 2]
    assert not caplog.messages


def test_a_terminal_shows_a_bar_and_no_lines(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level(logging.INFO, "hyperformer"):
        assert list(track(range(3), "reading", 3)) == [0, 1, 2]
    assert "reading:" in capsys.readouterr().err
    assert not caplog.messages
