"""Clients and tasks take turns, in the queue and in batches; who has left or fails costs the others nothing."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import pytest

from hyperformer.server import batching
from hyperformer.server.batching import Batcher, ModelFault, QueueFull, size_of
from hyperformer.types import HyperFormerError


class Model:
    """Answers each text with itself, once it may."""

    def __init__(self, task, batches):
        self.manifest, self.batches = SimpleNamespace(task=task), batches
        self.may, self.busy = threading.Event(), threading.Event()
        self.before = lambda sources: None

    def answer_sources(self, sources, batch_size):
        self.busy.set()
        assert self.may.wait(30)
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
    model.may.set()
    return model


@pytest.fixture
def batcher(model, monkeypatch):
    """A batcher whose worker is busy with a first request; each batch takes a second."""
    seconds = itertools.count()
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    batcher = Batcher(batch=4, queue=40)
    batcher.ask(model, ["busy"], "busy")
    assert model.busy.wait(30)
    yield batcher
    model.may.set()
    batcher.close()


def wait_for(model, *futures):
    model.may.set()
    return [future.result(30) for future in futures]


def test_a_request_of_many_rows_lets_others_in_between(batcher, model, batches):
    greedy = batcher.ask(model, [f"greedy {n}" for n in range(12)], "greedy")
    honest = [batcher.ask(model, [name], name) for name in "ab"]
    answers = wait_for(model, greedy, *honest)
    assert answers == [[f"greedy {n}" for n in range(12)], ["a"], ["b"]]
    assert [len(batch) for batch in batches] == [1, 4, 2, 4, 4]
    assert batches[2] == ["a", "b"]


def test_a_client_that_asks_often_leaves_every_other_turn_to_others(batcher, model, other, batches):
    greedy = [batcher.ask(model, ["greedy"] * 4, "greedy") for _ in range(6)]
    honest = [batcher.ask(other, ["honest"] * 4, f"honest {n}") for n in range(3)]
    wait_for(model, *greedy, *honest)
    assert [batch[0] for batch in batches[1:7]].count("honest") == 3


def test_a_busy_task_holds_up_another_for_one_batch(batcher, model, other, batches):
    many = [batcher.ask(model, ["many"] * 4, f"client {n}") for n in range(5)]
    alone = batcher.ask(other, ["alone"], "another client")
    wait_for(model, alone, *many)
    assert batches.index(["alone"]) == 1


def test_new_clients_without_end_do_not_starve_one_that_was_charged(batcher, model, batches):
    arrivals = itertools.count()

    def arrive(sources):
        if len(batches) < 40:
            batcher.ask(model, ["new"] * 4, f"new {next(arrivals)}")

    heavy = batcher.ask(model, ["heavy"] * 16, "heavy")
    model.before = arrive
    arrive([])
    wait_for(model, heavy)
    last = max(number for number, batch in enumerate(batches) if batch[0] == "heavy")
    assert last < 20


def test_long_texts_make_small_batches(batcher, model, batches):
    long = batcher.ask(model, ["long " * 100] * 3, "long")
    short = batcher.ask(model, ["short"] * 4, "short")
    wait_for(model, long, short)
    assert sorted(map(len, batches)) == [1, 1, 1, 1, 4]


def test_what_a_tokenizer_expands_counts_as_long():
    assert size_of("film") == 4
    assert size_of(("a", "b")) == 3
    assert size_of("a" * 10_000, 64) == 64 * 4 + 64 * 8 // 6
    assert size_of("\ufdfa" * 20_000, 64) == 64 * 4 + 64 * 8 * 18 // 6


def test_a_greedy_client_cannot_fill_the_queue_for_the_rest(batcher, model):
    greedy = [batcher.ask(model, ["greedy"] * 10, f"greedy {n}") for n in range(4)]
    with pytest.raises(QueueFull):
        batcher.ask(model, ["greedy"] * 10, "greedy too")
    honest = [batcher.ask(model, ["honest"] * 2, f"honest {n}") for n in range(5)]
    assert isinstance(greedy[3].exception(0), QueueFull)
    assert batcher.rows == 40
    assert wait_for(model, *greedy[:3], *honest) == [["greedy"] * 10] * 3 + [["honest"] * 2] * 5


def test_of_equal_clients_one_of_a_task_that_fills_the_queue_makes_room_for_another_task(batcher, model, other):
    many = [batcher.ask(model, ["many"] * 4, f"client {n}") for n in range(10)]
    with pytest.raises(QueueFull):
        batcher.ask(model, ["late"] * 4, "late")
    alone = batcher.ask(other, ["alone"] * 4, "alone")
    assert isinstance(many[-1].exception(0), QueueFull)
    assert wait_for(model, alone) == [["alone"] * 4]


def test_who_has_left_frees_the_queue_and_is_not_computed(batcher, model, batches):
    left = [batcher.ask(model, ["left"] * 10, f"client {n}") for n in range(4)]
    for future in left:
        assert future.cancel()
    assert batcher.rows == 0
    assert wait_for(model, batcher.ask(model, ["stays"], "stays")) == [["stays"]]
    assert batches == [["busy"], ["stays"]]


def test_who_leaves_between_two_batches_is_not_computed_further(batcher, model, batches):
    leaving = batcher.ask(model, ["leaving"] * 12, "leaving")
    model.before = lambda sources: "leaving" in sources and leaving.cancel()
    stays = batcher.ask(model, ["stays"], "stays")
    wait_for(model, stays)
    batcher.close()
    assert batches.count(["leaving"] * 4) == 1


def test_a_row_without_an_answer_fails_its_request_only(batcher, model):
    def refuse(sources):
        if "bad" in sources:
            raise HyperFormerError(f"row {sources.index('bad')} has no finite score")

    model.before = refuse
    good = [batcher.ask(model, [name], name) for name in "ab"]
    bad = batcher.ask(model, ["bad"], "bad client")
    long = batcher.ask(model, ["c", "d", "e", "f", "g", "bad"], "long client")
    assert wait_for(model, *good) == [["a"], ["b"]]
    with pytest.raises(ModelFault, match=r"^row 0 has no finite score"):
        bad.result(30)
    with pytest.raises(ModelFault, match=r"^rows 5 to 6 of the request: row 1 has no finite score"):
        long.result(30)
