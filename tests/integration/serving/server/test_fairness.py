"""Clients and tasks share the queue and the batches; a client that disconnects or fails costs others nothing."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import pytest

from hyperformer.core.errors import HyperFormerError
from hyperformer.serving.server import batching
from hyperformer.serving.server.batching import Batcher, ModelError, QueueFullError, estimate_cost


class Model:
    """A bundle that answers each text with the text itself, once `release` is set."""

    def __init__(self, task, batches):
        self.manifest, self.batches = SimpleNamespace(task=task), batches
        self.release, self.busy = threading.Event(), threading.Event()
        self.before = lambda sources: None

    def answer_sources(self, sources, batch_size):
        self.busy.set()
        assert self.release.wait(30)
        self.before(sources)
        self.batches.append(list(sources))
        return list(sources)


@pytest.fixture
def batches():
    return []


@pytest.fixture
def model(batches):
    return Model("first task", batches)


@pytest.fixture
def other(batches):
    model = Model("other task", batches)
    model.release.set()
    return model


@pytest.fixture
def batcher(model, monkeypatch):
    """Create a batcher whose worker is busy with a first request; each batch takes a second."""
    seconds = itertools.count()
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    batcher = Batcher(batch=4, queue=40)
    batcher.submit(model, ["busy"], "busy")
    assert model.busy.wait(30)
    yield batcher
    model.release.set()
    batcher.close()


def wait_for(model, *futures):
    model.release.set()
    return [future.result(30) for future in futures]


def test_a_build_request_many_rows_lets_others_in_between(batcher, model, batches):
    greedy = batcher.submit(model, [f"greedy {n}" for n in range(12)], "greedy")
    honest = [batcher.submit(model, [name], name) for name in "ab"]
    answers = wait_for(model, greedy, *honest)
    assert answers == [[f"greedy {n}" for n in range(12)], ["a"], ["b"]]
    assert [len(batch) for batch in batches] == [1, 4, 2, 4, 4]
    assert batches[2] == ["a", "b"]


def test_a_client_with_many_requests_gets_every_other_batch(batcher, model, other, batches):
    greedy = [batcher.submit(model, ["greedy"] * 4, "greedy") for _ in range(6)]
    honest = [batcher.submit(other, ["honest"] * 4, f"honest {n}") for n in range(3)]
    wait_for(model, *greedy, *honest)
    assert [batch[0] for batch in batches[1:7]].count("honest") == 3


def test_a_busy_task_holds_up_another_for_one_batch(batcher, model, other, batches):
    many = [batcher.submit(model, ["many"] * 4, f"client {n}") for n in range(5)]
    alone = batcher.submit(other, ["alone"], "another client")
    wait_for(model, alone, *many)
    assert batches.index(["alone"]) == 1


def test_a_stream_of_new_clients_does_not_starve_a_charged_client(batcher, model, batches):
    arrivals = itertools.count()

    def arrive(sources):
        if len(batches) < 40:
            batcher.submit(model, ["new"] * 4, f"new {next(arrivals)}")

    heavy = batcher.submit(model, ["heavy"] * 16, "heavy")
    model.before = arrive
    arrive([])
    wait_for(model, heavy)
    last = max(number for number, batch in enumerate(batches) if batch[0] == "heavy")
    assert last < 20


def test_long_texts_make_small_batches(batcher, model, batches):
    long = batcher.submit(model, ["long " * 100] * 3, "long")
    short = batcher.submit(model, ["short"] * 4, "short")
    wait_for(model, long, short)
    assert sorted(map(len, batches)) == [1, 1, 1, 1, 4]


def test_characters_that_a_tokenizer_expands_cost_more():
    assert estimate_cost("film") == 4
    assert estimate_cost(("a", "b")) == 3
    assert estimate_cost("a" * 10_000, 64) == 64 * 4 + 64 * 8 // 6
    assert estimate_cost("\ufdfa" * 20_000, 64) == 64 * 4 + 64 * 8 * 18 // 6


def test_a_greedy_client_cannot_fill_the_queue_for_the_rest(batcher, model):
    greedy = [batcher.submit(model, ["greedy"] * 10, f"greedy {n}") for n in range(4)]
    with pytest.raises(QueueFullError):
        batcher.submit(model, ["greedy"] * 10, "greedy too")
    honest = [batcher.submit(model, ["honest"] * 2, f"honest {n}") for n in range(5)]
    assert isinstance(greedy[3].exception(0), QueueFullError)
    assert batcher.queued_rows == 40
    assert wait_for(model, *greedy[:3], *honest) == [["greedy"] * 10] * 3 + [["honest"] * 2] * 5


def test_among_equal_clients_the_task_that_fills_the_queue_makes_room_for_another_task(batcher, model, other):
    many = [batcher.submit(model, ["many"] * 4, f"client {n}") for n in range(10)]
    with pytest.raises(QueueFullError):
        batcher.submit(model, ["late"] * 4, "late")
    alone = batcher.submit(other, ["alone"] * 4, "alone")
    assert isinstance(many[-1].exception(0), QueueFullError)
    assert wait_for(model, alone) == [["alone"] * 4]


def test_a_client_that_disconnects_frees_the_queue_and_is_not_computed(batcher, model, batches):
    left = [batcher.submit(model, ["left"] * 10, f"client {n}") for n in range(4)]
    for future in left:
        assert future.cancel()
    assert batcher.queued_rows == 0
    assert wait_for(model, batcher.submit(model, ["stays"], "stays")) == [["stays"]]
    assert batches == [["busy"], ["stays"]]


def test_a_client_that_disconnects_between_two_batches_is_not_computed_further(batcher, model, batches):
    leaving = batcher.submit(model, ["leaving"] * 12, "leaving")
    model.before = lambda sources: "leaving" in sources and leaving.cancel()
    stays = batcher.submit(model, ["stays"], "stays")
    wait_for(model, stays)
    batcher.close()
    assert batches.count(["leaving"] * 4) == 1


def test_a_row_without_an_answer_fails_its_request_only(batcher, model):
    def refuse(sources):
        if "bad" in sources:
            raise HyperFormerError(f"row {sources.index('bad')} has no finite score")

    model.before = refuse
    good = [batcher.submit(model, [name], name) for name in "ab"]
    bad = batcher.submit(model, ["bad"], "bad client")
    long = batcher.submit(model, ["c", "d", "e", "f", "g", "bad"], "long client")
    assert wait_for(model, *good) == [["a"], ["b"]]
    with pytest.raises(ModelError, match=r"^row 0 has no finite score"):
        bad.result(30)
    with pytest.raises(ModelError, match=r"^rows 5 to 6 of the request: row 1 has no finite score"):
        long.result(30)
