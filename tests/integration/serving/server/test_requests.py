"""Requests are parsed and serialized outside of the event loop, and refused before they are parsed."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import build_request, running

from hyperformer.core.errors import HyperFormerError
from hyperformer.runtime.bundle import Bundle
from hyperformer.serving.server import requests, responses
from hyperformer.serving.server.messages import MAX_TENSORS, BadRequestError, InferRequest, RequestTooLargeError

REQUEST = '{"inputs": [{"name": "sentence", "shape": [1], "datatype": "BYTES", "data": [%s]}]}'
MANY = 100_000


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def has_metric(server, line):
    return line in server.send("GET", "/metrics")[1].decode().splitlines()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (REQUEST % ",".join(['""'] * MANY), "strings; expected at most 1280"),
        (REQUEST % ",".join(['[""]'] * MANY), "strings; expected at most 1280"),
        (REQUEST % ",".join(['"\\\\"'] * MANY), "strings; expected at most 1280"),
        (REQUEST % ",".join(['"\\""'] * MANY), "strings; expected at most 1280"),
        (REQUEST % ",".join(["0"] * MANY), "bytes outside of strings; expected at most"),
        ('{"outputs": [' + ",".join(["{}"] * MANY) + "]}", "bytes outside of strings; expected at most"),
        ('{"parameters": {"a": [' + ",".join(["[]"] * MANY) + "]}}", "bytes outside of strings; expected at most"),
    ],
)  # fmt: skip
def test_a_request_with_too_much_structure_is_refused_before_parsing(body, message, monkeypatch):
    monkeypatch.setattr(InferRequest, "model_validate_json", lambda *_: pytest.fail("it was parsed"))
    with pytest.raises(RequestTooLargeError, match=message):
        requests.parse_request(body.encode(), None, 256)


@pytest.mark.parametrize("text", ["\ufdfa" * 5000, '"' * 10000, "\\" * 10000, '\\"' * 5000, "[{,]}:" * 3000, ""])
@pytest.mark.parametrize("indent", [None, 8])
def test_a_request_at_the_limits_is_parsed(text, indent):
    rows = [{"sentence": text}] * 256
    for ascii_only in (True, False):
        body = json.dumps(build_request(rows), ensure_ascii=ascii_only, indent=indent).encode()
        request, tensors = requests.parse_request(body, None, 256)
        assert (requests.extract_rows(request, tensors, ["sentence"], 256), tensors) == (rows, b"")


def test_rows_beyond_the_limit_are_refused_by_the_shape():
    request = InferRequest.model_validate_json((REQUEST % '"a"').replace("[1]", "[257]"))
    with pytest.raises(RequestTooLargeError, match="the request has 257 rows; expected at most 256"):
        requests.extract_rows(request, b"", ["sentence"], 256)


def test_binary_texts_are_read_up_to_the_rows_of_the_shape():
    tensor = {"name": "sentence", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 4 * MANY}}
    request = InferRequest.model_validate({"inputs": [tensor]})
    with pytest.raises(BadRequestError, match="has more than 2 texts; expected 2, as in its shape"):
        requests.extract_rows(request, struct.pack("<I", 0) * MANY, ["sentence"], 256)


def test_inputs_and_outputs_are_bounded(server):
    body = json.loads(REQUEST % '"a"')
    for name, tensors in (("inputs", body["inputs"]), ("outputs", [{"name": "label"}])):
        status, answer, _ = server.send("POST", "/v2/models/mood/infer", {**body, name: tensors * (MAX_TENSORS + 1)})
        assert status == 400
        assert answer["error"].startswith(f"{name}: List should have at most {MAX_TENSORS} items")


def test_requests_are_parsed_computed_and_serialized_outside_of_the_event_loop(bundles, rows, monkeypatch):
    threads = {}

    def record_thread(owner, name):
        function = getattr(owner, name)

        def wrapper(*arguments):
            threads.setdefault(name, set()).add(threading.current_thread().name.rpartition("_")[0])
            return function(*arguments)

        monkeypatch.setattr(owner, name, wrapper)

    for owner, name in (
        (requests, "parse_request"),
        (Bundle, "source"),
        (Bundle, "encode"),
        (responses, "encode_response"),
    ):
        record_thread(owner, name)
    with running(bundles) as server:
        assert server.infer("mood", rows["mood"][:1])[0] == 200
        assert threads == {"parse_request": {"short requests"}, "source": {"short requests"}, "encode": {""},
                           "encode_response": {"short requests"}}  # fmt: skip
        threads.clear()
        assert server.infer("mood", [{"sentence": "a" * 60000}] * 2)[0] == 200
    assert threads["parse_request"] == threads["source"] == {"long requests"}


def test_short_requests_do_not_wait_for_long_ones(bundles, rows, monkeypatch):
    release, busy, parse = threading.Event(), threading.Event(), requests.parse_request

    def wait(body, *more):
        if len(body) > 100_000:
            busy.set()
            assert release.wait(60)
        return parse(body, *more)

    monkeypatch.setattr(requests, "parse_request", wait)
    with running(bundles) as server, ThreadPoolExecutor(1) as pool:
        long = pool.submit(server.infer, "mood", [{"sentence": "a" * 60000}] * 2)
        try:
            assert busy.wait(60)
            assert server.infer("mood", rows["mood"][:1])[0] == 200
            assert not long.done()
        finally:
            release.set()
        assert long.result(60)[0] == 200


@pytest.fixture
def held(monkeypatch):
    """Block the model until the event is set, and let it fail on some texts."""
    release, answer = threading.Event(), Bundle.answer_sources

    def wait(self, sources, *more):
        assert release.wait(60)
        if any("poison" in source for source in sources):
            raise HyperFormerError("row 1 has no finite score")
        return answer(self, sources, *more)

    monkeypatch.setattr(Bundle, "answer_sources", wait)
    yield release
    release.set()


def test_rows_of_a_client_that_disconnects_are_not_computed_and_counted_as_499(bundles, rows, held):
    with running(bundles) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.infer, "mood", rows["mood"][:1])
        wait_until(lambda: has_metric(server, "hyperformer_batch_rows_count 1.0"))
        body = json.dumps(build_request(rows["mood"][:3])).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST /v2/models/mood/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            wait_until(lambda: has_metric(server, "hyperformer_waiting_rows 3.0"))
        wait_until(lambda: has_metric(server, 'hyperformer_requests_total{status="499",task="mood"} 1.0'))
        assert has_metric(server, "hyperformer_waiting_rows 0.0")
        held.set()
        assert first.result(60)[0] == 200
        assert server.infer("mood", rows["mood"][:1])[0] == 200
        assert has_metric(server, "hyperformer_batch_rows_sum 2.0")


def test_a_row_without_an_answer_fails_its_request_only(bundles, rows, held):
    with running(bundles) as server, ThreadPoolExecutor(3) as pool:
        first = pool.submit(server.infer, "mood", rows["mood"][:1])
        wait_until(lambda: has_metric(server, "hyperformer_batch_rows_count 1.0"))
        bad = pool.submit(server.infer, "mood", [{"sentence": "poison"}])
        good = pool.submit(server.infer, "mood", rows["mood"][:1])
        wait_until(lambda: has_metric(server, "hyperformer_waiting_rows 2.0"))
        held.set()
        assert [future.result(60)[0] for future in (first, good)] == [200, 200]
        assert bad.result(60)[:2] == (500, {"error": "row 1 has no finite score"})
