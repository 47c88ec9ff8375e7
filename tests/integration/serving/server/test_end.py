"""Signals stop a server within the time limit, whatever its state."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from serving import build_request

SERVE = """
import ctypes, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup, or in the background of a shell
signal.signal(signal.SIGINT, signal.default_int_handler)
from hyperformer.runtime.bundle import Bundle
from hyperformer.serving.server.registry import Registry

def block(*_):
    print("blocked", file=sys.stderr, flush=True)
    mutex = (ctypes.c_char * 64)()
    for _ in range(2):  # forever, like a library call that signals do not interrupt
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

setattr(*{"inference": (Bundle, "answer_sources"), "startup": (Registry, "refresh")}[sys.argv.pop(1)], block)
from hyperformer.cli import main
sys.exit(main())
"""


@contextlib.contextmanager
def serving(root, state, seconds):
    command = [sys.executable, "-c", SERVE, state, "serve", str(root), "--port", "0", "--threads", "1"]
    with subprocess.Popen([*command, "--shutdown-seconds", str(seconds)], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_port(process):
    line = next(line for line in process.stderr if "tasks at" in line)
    return int(line.split("127.0.0.1:")[1].split("/")[0])


def send(stack, port, body, length=0):
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    head = f"POST /v2/models/mood/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length or len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_a_signal_stops_it_within_the_time_limit_and_pending_requests_get_503(bundles, rows):
    """During an inference that never returns, with a partial body, a partial header, and an idle connection."""
    signals = {signal.SIGTERM: 0, signal.SIGHUP: 0, signal.SIGINT: 130}
    body = json.dumps(build_request(rows["mood"][:1])).encode()
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(serving(bundles, "inference", 1)) for _ in signals]
        ports = [read_port(process) for process in processes]
        accepted = []
        for port in ports:
            accepted += [send(stack, port, body), send(stack, port, b"{", 100)]
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"POST /v2/mod")
        for process in processes:
            assert next(process.stderr) == "blocked\n"
        for process, number in zip(processes, signals, strict=True):
            process.send_signal(number)
        assert [process.wait(30) for process in processes] == list(signals.values())
        assert [connection.recv(100).split(b"\r\n")[0] for connection in accepted] == [
            b"HTTP/1.1 503 Service Unavailable"
        ] * len(accepted)


def test_a_second_signal_ends_it_immediately(bundles, rows):
    body = json.dumps(build_request(rows["mood"][:1])).encode()
    with serving(bundles, "inference", 3600) as process, contextlib.ExitStack() as stack:
        port = read_port(process)
        send(stack, port, body)
        assert next(process.stderr) == "blocked\n"
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionError):  # refused once the first signal is handled
            for _ in range(600):
                socket.create_connection(("127.0.0.1", port)).close()
                time.sleep(0.05)
            pytest.fail("the server still listens")
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 128 + signal.SIGHUP


def test_a_signal_ends_it_while_it_loads_tasks(bundles):
    with serving(bundles, "startup", 1) as process:
        assert next(process.stderr) == "blocked\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
