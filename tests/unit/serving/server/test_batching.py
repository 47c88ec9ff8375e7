"""Requests that wait are answered in batches, tasks take turns, and each request gets its own answers."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from hyperformer.serving.server.batching import Batcher, QueueFullError, ShutdownError


class Echo:
    """A bundle that answers each text with the text itself, once `release` is set."""

    def __init__(self, name="echo"):
        self.manifest = SimpleNamespace(task=name)
        self.release, self.busy, self.batches = threading.Event(), threading.Event(), []

    def answer_sources(self, sources, batch_size):
        self.busy.set()
        assert self.release.wait(30)
        self.batches.append(list(sources))
        if "bad" in sources:
            raise RuntimeError("a bad text")
        return list(sources)


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def busy(echo):
    """Create a batcher whose worker is busy with a first request."""
    batcher = Batcher(batch=4, queue=8)
    first = batcher.submit(echo, ["first"])
    assert echo.busy.wait(30)
    yield batcher, first
    echo.release.set()
    batcher.close()


def test_waiting_requests_form_one_batch_and_each_gets_its_answers(busy, echo):
    batcher, first = busy
    waiting = [batcher.submit(echo, [f"{n}a", f"{n}b"]) for n in range(3)]
    assert batcher.queued_rows == 6
    echo.release.set()
    assert [future.result(30) for future in [first, *waiting]] == [["first"], *([f"{n}a", f"{n}b"] for n in range(3))]
    assert echo.batches == [["first"], ["0a", "0b", "1a", "1b"], ["2a", "2b"]]


def test_tasks_take_turns(busy, echo):
    batcher, _ = busy
    other = Echo("other")
    other.batches = echo.batches
    other.release.set()
    futures = [
        batcher.submit(bundle, [text]) for bundle, text in ((echo, "1"), (other, "2"), (echo, "3"), (other, "4"))
    ]
    echo.release.set()
    assert [future.result(30) for future in futures] == [["1"], ["2"], ["3"], ["4"]]
    assert echo.batches == [["first"], ["2", "4"], ["1", "3"]]


def test_a_request_larger_than_a_batch_is_answered(busy, echo):
    batcher, _ = busy
    future = batcher.submit(echo, list("abcdef"))
    echo.release.set()
    assert future.result(30) == list("abcdef")


def test_a_request_beyond_the_queue_is_refused_with_a_retry_time(busy, echo):
    batcher, _ = busy
    batcher.submit(echo, list("abcdefgh"))
    with pytest.raises(QueueFullError, match=r"the queue is full: 8 rows are waiting\. Retry in 1 s") as refused:
        batcher.submit(echo, ["i"])
    assert refused.value.seconds == 1


def test_a_cancelled_request_is_not_computed(busy, echo):
    batcher, _ = busy
    assert batcher.submit(echo, ["cancelled"]).cancel()
    future = batcher.submit(echo, ["kept"])
    echo.release.set()
    assert future.result(30) == ["kept"]
    assert echo.batches == [["first"], ["kept"]]


def test_a_batch_that_fails_fails_its_requests_and_the_next_batch_is_answered(busy, echo):
    batcher, _ = busy
    bad = batcher.submit(echo, ["bad", "a", "b", "c"])
    good = batcher.submit(echo, ["good"])
    echo.release.set()
    with pytest.raises(RuntimeError, match="a bad text"):
        bad.result(30)
    assert good.result(30) == ["good"]


def test_closing_answers_waiting_requests_and_refuses_new_ones(busy, echo):
    batcher, _ = busy
    future = batcher.submit(echo, ["last"])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while batcher._accepting:
        pass
    with pytest.raises(ShutdownError, match="shutting down"):
        batcher.submit(echo, ["too late"])
    echo.release.set()
    closing.join(30)
    assert future.result(0) == ["last"]
