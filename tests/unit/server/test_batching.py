"""What waits is answered together, in turn, and each request gets its own."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from hyperformer.server.batching import Batcher, Closing, QueueFull


class Echo:
    """Answers each text with itself, once it is let go on."""

    def __init__(self, name="echo"):
        self.manifest = SimpleNamespace(task=name)
        self.go, self.busy, self.batches = threading.Event(), threading.Event(), []

    def answer_sources(self, sources, batch_size):
        self.busy.set()
        assert self.go.wait(30)
        self.batches.append(list(sources))
        if "bad" in sources:
            raise RuntimeError("a bad text")
        return list(sources)


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def busy(echo):
    """A batcher whose worker is at a first request."""
    batcher = Batcher(batch=4, queue=8)
    first = batcher.ask(echo, ["first"])
    assert echo.busy.wait(30)
    yield batcher, first
    echo.go.set()
    batcher.close()


def test_what_waits_meanwhile_is_one_batch_and_goes_back_to_each(busy, echo):
    batcher, first = busy
    waiting = [batcher.ask(echo, [f"{n}a", f"{n}b"]) for n in range(3)]
    assert batcher.rows == 6
    echo.go.set()
    assert [one.result(30) for one in [first, *waiting]] == [["first"], *([f"{n}a", f"{n}b"] for n in range(3))]
    assert echo.batches == [["first"], ["0a", "0b", "1a", "1b"], ["2a", "2b"]]


def test_tasks_take_turns(busy, echo):
    batcher, _ = busy
    other = Echo("other")
    other.batches = echo.batches
    other.go.set()
    asked = [batcher.ask(bundle, [text]) for bundle, text in ((echo, "1"), (other, "2"), (echo, "3"), (other, "4"))]
    echo.go.set()
    assert [one.result(30) for one in asked] == [["1"], ["2"], ["3"], ["4"]]
    assert echo.batches == [["first"], ["2", "4"], ["1", "3"]]


def test_a_request_larger_than_a_batch_is_answered(busy, echo):
    batcher, _ = busy
    asked = batcher.ask(echo, list("abcdef"))
    echo.go.set()
    assert asked.result(30) == list("abcdef")


def test_more_than_the_queue_is_told_to_come_back(busy, echo):
    batcher, _ = busy
    batcher.ask(echo, list("abcdefgh"))
    with pytest.raises(QueueFull, match=r"8 rows are waiting, and no more may; come back in 1 s") as refused:
        batcher.ask(echo, ["i"])
    assert refused.value.seconds == 1


def test_a_request_that_was_given_up_is_not_worked_on(busy, echo):
    batcher, _ = busy
    assert batcher.ask(echo, ["given up"]).cancel()
    asked = batcher.ask(echo, ["kept"])
    echo.go.set()
    assert asked.result(30) == ["kept"]
    assert echo.batches == [["first"], ["kept"]]


def test_a_batch_that_fails_tells_its_requests_and_the_next_one_is_answered(busy, echo):
    batcher, _ = busy
    bad = batcher.ask(echo, ["bad", "a", "b", "c"])
    good = batcher.ask(echo, ["good"])
    echo.go.set()
    with pytest.raises(RuntimeError, match="a bad text"):
        bad.result(30)
    assert good.result(30) == ["good"]


def test_closing_answers_what_waits_and_takes_no_more(busy, echo):
    batcher, _ = busy
    asked = batcher.ask(echo, ["last"])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while batcher._open:
        pass
    with pytest.raises(Closing, match="about to end"):
        batcher.ask(echo, ["too late"])
    echo.go.set()
    closing.join(30)
    assert asked.result(0) == ["last"]
