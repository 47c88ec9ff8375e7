"""Limits of connections: the time of each step of a request, and reachable health checks under many connections."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import build_request, running

from hyperformer.runtime.bundle import Bundle
from hyperformer.serving.server import connections
from hyperformer.serving.server.connections import LimitedProtocol, connection_limit

LIMIT = 8
PARTIAL_BODY = b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n{"


@pytest.fixture
def limited(monkeypatch):
    monkeypatch.setattr(connections, "connection_limit", lambda: LIMIT)


@pytest.fixture
def hurried(monkeypatch):
    """Limit every step of a client to half a second."""
    for step in connections.SECONDS:
        monkeypatch.setitem(connections.SECONDS, step, 0.5)


@pytest.fixture
def held(monkeypatch):
    """Block the model until the event is set."""
    release, answer = threading.Event(), Bundle.answer_sources

    def wait(self, *arguments):
        assert release.wait(60)
        return answer(self, *arguments)

    monkeypatch.setattr(Bundle, "answer_sources", wait)
    yield release
    release.set()


@contextlib.contextmanager
def connected(server, count=1, sent=b""):
    """Open connections, and send bytes on each."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sockets.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
            sockets[-1].sendall(sent)
        yield sockets


def wait_for(server, line):
    """Wait until the metrics of the server contain a line."""
    end = time.monotonic() + 30
    while line not in server.send("GET", "/metrics")[1].decode():
        assert time.monotonic() < end, line
        time.sleep(0.01)


def is_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize(
    "sent", [b"", b"GET /v2 HTTP/1.1\r\nHost: ", PARTIAL_BODY % b"mood", b"GET /v2 HTTP/1.0\r\n\r\n"]
)
def test_beyond_the_limit_a_connection_closes_the_longest_idle_one(bundles, limited, sent):
    with running(bundles) as server, connected(server, 30, sent) as sockets:
        assert server.send("GET", "/v2/health/ready")[0] == 200
        for connection in sockets[: 30 - LIMIT]:
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):  # an answer, then the end
                    pass
        if b"1.0" not in sent:
            assert all(is_open(connection) for connection in sockets[-LIMIT + 1 :])


def test_waiting_requests_are_kept_and_beyond_half_of_the_limit_requests_are_refused(bundles, rows, limited, held):
    with running(bundles) as server, ThreadPoolExecutor(LIMIT // 2) as pool:

        def infer():  # again, if the request for metrics below exceeded the limit
            while (status := server.infer("mood", rows["mood"][:1])[0]) == 429:
                time.sleep(0.02)
            return status

        futures = []
        for number in range(LIMIT // 2):
            futures.append(pool.submit(infer))
            wait_for(server, "hyperformer_batch_rows_count 1.0")
            wait_for(server, f"hyperformer_waiting_rows {number}.0")
        with connected(server, 3 * LIMIT):
            status, body, headers = server.infer("mood", rows["mood"][:1])
            assert (status, headers["retry-after"]) == (429, "1")
            assert body["error"] == "too many requests are waiting (4). Retry in 1 s."
            assert server.send("GET", "/v2/health/ready")[0] == 200
        held.set()
        assert [future.result(60) for future in futures] == [200] * len(futures)
        assert server.infer("mood", rows["mood"][:1])[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT"])
def test_a_header_that_does_not_arrive_closes_the_connection(bundles, hurried, sent):
    with running(bundles) as server, connected(server, 1, sent) as [connection]:
        assert connection.recv(4096) == b""


def test_a_second_header_that_does_not_arrive_closes_the_connection(bundles, hurried):
    with (
        running(bundles) as server,
        connected(server, 1, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n") as [connection],
    ):
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(4096)
        connection.sendall(b"GET /v2 HT")  # which ends uvicorn's keep-alive timeout
        while chunk := connection.recv(4096):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")


def test_a_header_in_single_bytes_has_the_same_time_limit(bundles, hurried):
    with running(bundles) as server, connected(server, 1, b"GET /v2 HTTP/1.1\r\nX: ") as [connection]:
        end = time.monotonic() + 10
        while is_open(connection):
            assert time.monotonic() < end
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"a")
            time.sleep(0.01)


def test_a_body_that_does_not_arrive_is_answered_408(bundles, hurried):
    with running(bundles) as server, connected(server, 1, PARTIAL_BODY % b"mood") as [connection]:
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 Request Timeout")
        assert b"the request body did not arrive within 0.5 s. Send a smaller body." in body
        wait_for(server, 'status="499"')


def test_a_body_that_does_not_arrive_after_its_answer_closes_the_connection(bundles, monkeypatch):
    monkeypatch.setitem(connections.SECONDS, "body", 2)
    with running(bundles) as server, connected(server, 1, PARTIAL_BODY % b"mod") as [connection]:
        assert connection.recv(4096).startswith(b"HTTP/1.1 404")
        end = time.monotonic() + 20
        while is_open(connection):  # also reads the rest of the answer
            assert time.monotonic() < end
            with contextlib.suppress(ConnectionError):
                connection.sendall(b" ")  # each byte restarts uvicorn's keep-alive timeout
            time.sleep(0.05)


def test_answers_that_the_client_does_not_read_close_the_connection(bundles, hurried, monkeypatch):
    aborted, abort = threading.Event(), LimitedProtocol._abort
    monkeypatch.setattr(LimitedProtocol, "_abort", lambda self: (abort(self), aborted.set()))
    with running(bundles) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        assert aborted.wait(30)


def test_a_slow_model_has_no_time_limit_here(bundles, rows, hurried, held):
    with running(bundles) as server, ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.infer, "mood", rows["mood"][:1])
        time.sleep(1)
        held.set()
        assert future.result(60)[0] == 200


def test_a_connection_is_used_for_several_requests(server, rows):
    body = json.dumps(build_request(rows["mood"][:1])).encode()
    request = b"POST /v2/models/mood/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with connected(server, 1, request * 3 + b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as [
        connection
    ]:
        answers = b""
        while chunk := connection.recv(4096):
            answers += chunk
    assert answers.count(b"HTTP/1.1 200") == 4


@pytest.mark.parametrize(
    ("descriptors", "limit"), [(1024, 768), (resource.RLIM_INFINITY, 2048), (1 << 20, 2048), (1, 2)]
)
def test_the_limit_is_a_share_of_the_file_descriptors(monkeypatch, descriptors, limit):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert connection_limit() == limit
