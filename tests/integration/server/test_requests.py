"""Requests are read and written outside of the event loop, and refused before they are parsed."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import request_of, running

from hyperformer.runtime.bundle import Bundle
from hyperformer.server import protocol
from hyperformer.server.protocol import MOST_TENSORS, BadRequest, InferRequest, TooLarge
from hyperformer.types import HyperFormerError

HEAD = '{"inputs": [{"name": "sentence", "shape": [1], "datatype": "BYTES", "data": [%s]}]}'
MANY = 100_000


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def counts(server, line):
    return line in server.ask("GET", "/metrics")[1].decode().splitlines()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (HEAD % ",".join(['""'] * MANY), "strings; expected at most 1280"),
        (HEAD % ",".join(['[""]'] * MANY), "strings; expected at most 1280"),
        (HEAD % ",".join(['"\\\\"'] * MANY), "strings; expected at most 1280"),
        (HEAD % ",".join(['"\\""'] * MANY), "strings; expected at most 1280"),
        (HEAD % ",".join(["0"] * MANY), "bytes outside of strings; expected at most"),
        ('{"outputs": [' + ",".join(["{}"] * MANY) + "]}", "bytes outside of strings; expected at most"),
        ('{"parameters": {"a": [' + ",".join(["[]"] * MANY) + "]}}", "bytes outside of strings; expected at most"),
    ],
)  # fmt: skip
def test_more_than_a_request_can_hold_is_refused_unparsed(body, fault, monkeypatch):
    monkeypatch.setattr(InferRequest, "model_validate_json", lambda *_: pytest.fail("it was parsed"))
    with pytest.raises(TooLarge, match=fault):
        protocol.parse(body.encode(), None, 256)


@pytest.mark.parametrize("text", ["\ufdfa" * 5000, '"' * 10000, "\\" * 10000, '\\"' * 5000, "[{,]}:" * 3000, ""])
@pytest.mark.parametrize("indent", [None, 8])
def test_all_that_a_request_may_hold_is_parsed(text, indent):
    rows = [{"sentence": text}] * 256
    for plain in (True, False):
        body = json.dumps(request_of(rows), ensure_ascii=plain, indent=indent).encode()
        request, behind = protocol.parse(body, None, 256)
        assert (protocol.rows_of(request, behind, ["sentence"], 256), behind) == (rows, b"")


def test_rows_beyond_the_limit_are_refused_by_the_shape():
    request = InferRequest.model_validate_json((HEAD % '"a"').replace("[1]", "[257]"))
    with pytest.raises(TooLarge, match="the request holds 257 rows, expected at most 256"):
        protocol.rows_of(request, b"", ["sentence"], 256)


def test_texts_behind_the_json_are_read_as_far_as_the_shape_goes():
    tensor = {"name": "sentence", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 4 * MANY}}
    request = InferRequest.model_validate({"inputs": [tensor]})
    with pytest.raises(BadRequest, match="has more than 2 texts, expected as many as its shape has rows"):
        protocol.rows_of(request, struct.pack("<I", 0) * MANY, ["sentence"], 256)


def test_inputs_and_outputs_are_bounded(server):
    body = json.loads(HEAD % '"a"')
    for name, tensors in (("inputs", body["inputs"]), ("outputs", [{"name": "label"}])):
        status, answer, _ = server.ask("POST", "/v2/models/mood/infer", {**body, name: tensors * (MOST_TENSORS + 1)})
        assert status == 400
        assert answer["error"].startswith(f"{name}: List should have at most {MOST_TENSORS} items")


def test_requests_are_read_computed_and_written_outside_of_the_event_loop(bundles, rows, monkeypatch):
    threads = {}

    def note(owner, name):
        work = getattr(owner, name)

        def noting(*arguments):
            threads.setdefault(name, set()).add(threading.current_thread().name.rpartition("_")[0])
            return work(*arguments)

        monkeypatch.setattr(owner, name, noting)

    for owner, name in ((protocol, "parse"), (Bundle, "source"), (Bundle, "encode"), (protocol, "response")):
        note(owner, name)
    with running(bundles) as server:
        assert server.infer("mood", rows["mood"][:1])[0] == 200
        assert threads == {"parse": {"short requests"}, "source": {"short requests"}, "encode": {""},
                           "response": {"short requests"}}  # fmt: skip
        threads.clear()
        assert server.infer("mood", [{"sentence": "a" * 60000}] * 2)[0] == 200
    assert threads["parse"] == threads["source"] == {"long requests"}


def test_short_requests_do_not_wait_for_long_ones(bundles, rows, monkeypatch):
    may, busy, parse = threading.Event(), threading.Event(), protocol.parse

    def wait(body, *more):
        if len(body) > 100_000:
            busy.set()
            assert may.wait(60)
        return parse(body, *more)

    monkeypatch.setattr(protocol, "parse", wait)
    with running(bundles) as server, ThreadPoolExecutor(1) as several:
        long = several.submit(server.infer, "mood", [{"sentence": "a" * 60000}] * 2)
        try:
            assert busy.wait(60)
            assert server.infer("mood", rows["mood"][:1])[0] == 200
            assert not long.done()
        finally:
            may.set()
        assert long.result(60)[0] == 200


@pytest.fixture
def held(monkeypatch):
    """The model holds its answers until it may give them, and has none for some."""
    may, answer = threading.Event(), Bundle.answer_sources

    def wait(self, sources, *more):
        assert may.wait(60)
        if any("poison" in source for source in sources):
            raise HyperFormerError("row 1 has no finite score")
        return answer(self, sources, *more)

    monkeypatch.setattr(Bundle, "answer_sources", wait)
    yield may
    may.set()


def test_rows_of_a_client_that_has_left_are_not_computed_and_counted_as_such(bundles, rows, held):
    with running(bundles) as server, ThreadPoolExecutor(1) as several:
        first = several.submit(server.infer, "mood", rows["mood"][:1])
        wait_until(lambda: counts(server, "hyperformer_batch_rows_count 1.0"))
        body = json.dumps(request_of(rows["mood"][:3])).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST /v2/models/mood/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            wait_until(lambda: counts(server, "hyperformer_waiting_rows 3.0"))
        wait_until(lambda: counts(server, 'hyperformer_requests_total{status="499",task="mood"} 1.0'))
        assert counts(server, "hyperformer_waiting_rows 0.0")
        held.set()
        assert first.result(60)[0] == 200
        assert server.infer("mood", rows["mood"][:1])[0] == 200
        assert counts(server, "hyperformer_batch_rows_sum 2.0")


def test_a_row_without_an_answer_fails_its_request_only(bundles, rows, held):
    with running(bundles) as server, ThreadPoolExecutor(3) as several:
        first = several.submit(server.infer, "mood", rows["mood"][:1])
        wait_until(lambda: counts(server, "hyperformer_batch_rows_count 1.0"))
        bad = several.submit(server.infer, "mood", [{"sentence": "poison"}])
        good = several.submit(server.infer, "mood", rows["mood"][:1])
        wait_until(lambda: counts(server, "hyperformer_waiting_rows 2.0"))
        held.set()
        assert [future.result(60)[0] for future in (first, good)] == [200, 200]
        assert bad.result(60)[:2] == (500, {"error": "row 1 has no finite score"})
