"""The server over HTTP: the protocol, its limits, changes while it runs, and its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from serving import Running, running
from toys import task_settings

from hyperformer.cli import main
from hyperformer.runtime import load
from hyperformer.runtime.bundle import Bundle

TASKS = list(task_settings())
HERE = Path(__file__).parent


@pytest.fixture(params=["bundles", "shared_base"])
def root(request):
    return request.getfixturevalue(request.param)


def labels_of(body):
    return next(one["data"] for one in body["outputs"] if one["name"] == "label")


def test_it_says_what_it_is_and_what_there_is(server):
    assert server.ask("GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready")[:2] == (200, {"ready": True})
    assert server.ask("GET", "/v2")[1]["name"] == "hyperformer"
    assert [one["name"] for one in server.ask("POST", "/v2/repository/index")[1]] == sorted(TASKS)
    assert server.ask("GET", "/v2/models/likeness/versions/1/ready")[:2] == (200, {"ready": True})
    found = server.ask("GET", "/v2/models/likeness")[1]
    assert found["inputs"] == [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("a", "b")]
    assert {one["name"]: one["shape"] for one in found["outputs"]}["probabilities"] == [-1, 4]
    assert found["parameters"]["labels"] == ["0", "1", "2", "3"]


def test_tritons_client_lists_reads_and_infers(root, rows):
    with running(root) as server:
        client = triton.InferenceServerClient(server.address)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.get_server_metadata()["name"] == "hyperformer"
        assert [one["name"] for one in client.get_model_repository_index()] == sorted(TASKS)
        for task in TASKS:
            assert client.is_model_ready(task, "1")
            columns = [one["name"] for one in client.get_model_metadata(task)["inputs"]]
            assert columns == list(rows[task][0])
            expected = load(root)[task].answer(rows[task])
            for binary in (True, False):
                inputs = []
                for name in columns:
                    texts = np.array([row[name].encode() for row in rows[task]], dtype=object)
                    inputs.append(triton.InferInput(name, [len(texts), 1], "BYTES"))
                    inputs[-1].set_data_from_numpy(texts.reshape(-1, 1), binary_data=binary)
                kinds = ["label", "probabilities", "truncated"] + (["value"] if task == "likeness" else [])
                wanted = [triton.InferRequestedOutput(kind, binary_data=binary) for kind in kinds]
                found = client.infer(task, inputs, outputs=wanted, request_id="7")
                assert found.get_response()["id"] == "7"
                said = [one.decode() if binary else one for one in found.as_numpy("label").tolist()]
                assert said == [answer.label for answer in expected]
                shares = [list(answer.probabilities.values()) for answer in expected]
                np.testing.assert_allclose(found.as_numpy("probabilities"), shares, atol=1e-5)
                assert not found.as_numpy("truncated").any()
                if task == "likeness":
                    values = [answer.value for answer in expected]
                    np.testing.assert_allclose(found.as_numpy("value"), values, atol=1e-4)


def test_only_what_is_wanted_is_given(server, rows):
    body = server.infer("mood", rows["mood"][:2], outputs=[{"name": "probabilities"}])[1]
    assert [(one["name"], one["shape"]) for one in body["outputs"]] == [("probabilities", [2, 2])]


def test_a_text_that_was_cut_is_said_so(server):
    body = server.infer("mood", [{"sentence": "word " * 200}])[1]
    assert next(one["data"] for one in body["outputs"] if one["name"] == "truncated") == [True]


GOOD = {"name": "sentence", "shape": [1], "datatype": "BYTES", "data": ["a film"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datatype": "FP32"}, "inputs.0.datatype: Input should be 'BYTES'"),
        ({"name": "sentenc"}, "unknown input 'sentenc'; the task takes sentence"),
        ({"shape": [2]}, r"has the shape \[2\] and 1 texts, expected \[rows\] or"),
        ({"shape": [1, 2]}, r"has the shape \[1, 2\] and 1 texts"),
        ({"shape": [0], "data": []}, "holds no row, expected at least one"),
        ({"data": None}, "has neither data nor binary_data_size; give one"),
        ({"parameters": {"binary_data_size": 3}}, "has both data and binary_data_size; give one"),
        ({"data": None, "parameters": {"binary_data_size": 3}}, "has binary_data_size 3, but 0 bytes are left"),
        ({"data": [1]}, "inputs.0.data"),
        ({"data": ["\ud800"]}, "surrogate|not a valid|Invalid JSON|unicode"),
        ({"shape": "1"}, "inputs.0.shape"),
        ({"shape": [2], "data": [["a", "b"]]}, r"has data that is not of its shape \[2\]"),
        ({"shape": [1, 1], "data": [["a", "b"]]}, r"has data that is not of its shape \[1, 1\]"),
        ({"parameters": {"binary_data_size": 0}}, "has both data and binary_data_size; give one"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_a_sentence(server, change, said):
    status, body, _ = server.ask("POST", "/v2/models/mood/infer", {"inputs": [{**GOOD, **change}]})
    assert status == 400
    assert re.search(said, body["error"]), body


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        ("mood", b"{", {}, 400, "the body: Invalid JSON"),
        ("mood", {"inputs": []}, {}, 400, "inputs: List should have at least 1 item"),
        ("mood", {"inputs": [GOOD, GOOD]}, {}, 400, "the input 'sentence' stands twice"),
        ("mood", {"inputs": [GOOD], "outputs": [{"name": "logits"}]}, {}, 400, "unknown output 'logits'"),
        (
            "mood",
            {"inputs": [GOOD], "parameters": {"binary_data_output": "false"}},
            *({}, 400, "the parameter binary_data_output is 'false', expected true or false"),
        ),
        ("mood", b"{}", {"Inference-Header-Content-Length": "9" * 5000}, 400, "expected the bytes of JSON"),
        ("likeness", {"inputs": [{**GOOD, "name": "a"}]}, {}, 400, "the input 'b' is missing; the task takes a, b"),
        ("mood", b"{}", {"Inference-Header-Content-Length": "9"}, 400, "expected the bytes of JSON among the body's 2"),
        ("mood", {"inputs": [GOOD]}, {"Content-Encoding": "gzip"}, 415, "encoded with 'gzip', expected none"),
        ("mod", {"inputs": [GOOD]}, {}, 404, "unknown task 'mod'; there are likeness, mood, mood3"),
        ("mood/versions/2", {"inputs": [GOOD]}, {}, 404, "the task 'mood' has no version '2'; take 1"),
    ],
)
def test_so_is_one_that_cannot_be_read(server, path, body, headers, status, said):
    found, told, _ = server.ask("POST", f"/v2/models/{path}/infer", body, headers)
    assert found == status
    assert said in told["error"]


def test_tensors_behind_the_json_that_end_early_are_refused(server):
    tensor = {k: v for k, v in GOOD.items() if k != "data"} | {"parameters": {"binary_data_size": 6}}
    said = json.dumps({"inputs": [tensor]}).encode()
    header = {"Inference-Header-Content-Length": str(len(said))}
    for behind, fault in (
        (b"\x09\0\0\0ab", "ends in the middle of a text"),
        (b"\x02\0\0\0\xff\xfe", "holds a text that is not UTF-8"),
        (b"\x02\0\0\0abmore", "4 bytes follow the last tensor"),
    ):
        status, told, _ = server.ask("POST", "/v2/models/mood/infer", said + behind, header)
        assert (status, fault in told["error"]) == (400, True), told


def test_a_path_that_is_none_and_a_method_that_is_not_the_paths(server):
    assert server.ask("GET", "/v3")[:2] == (404, {"error": "Not Found"})
    status, body, headers = server.ask("GET", "/v2/models/mood/infer")
    assert (status, body, headers["allow"]) == (405, {"error": "Method Not Allowed"}, "POST")


def test_limits_of_rows_texts_and_bodies(bundles):
    with running(bundles, rows=3, text_bytes=20, body_bytes=2000) as server:
        assert server.infer("mood", [{"sentence": "ä" * 10}] * 3)[0] == 200
        status, body, _ = server.infer("mood", [{"sentence": "a"}] * 4)
        assert (status, body["error"]) == (413, "the request holds 4 rows, expected at most 3; send several requests")
        status, body, _ = server.infer("mood", [{"sentence": "ä" * 11}])
        assert (status, body["error"]) == (413, "a text has 22 bytes, expected at most 20; send less of it")
        status, body, _ = server.infer("mood", [{"sentence": "a" * 3000}])
        assert (status, body["error"]) == (413, "the body has more than 2000 bytes; send fewer rows a request")


@pytest.fixture
def held(monkeypatch):
    """The model holds its answers until it is let go on."""
    go, answer = threading.Event(), Bundle.answer_sources

    def wait(self, *given):
        assert go.wait(60)
        return answer(self, *given)

    monkeypatch.setattr(Bundle, "answer_sources", wait)
    yield go
    go.set()


def test_a_full_queue_says_when_to_come_back_and_loses_nothing(bundles, rows, held):
    with running(bundles, queue=4, rows=4) as server, ThreadPoolExecutor(8) as several:
        first = several.submit(server.infer, "mood", rows["mood"][:2])
        while "hyperformer_batch_rows_count 1.0" not in server.ask("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        waiting = [several.submit(server.infer, "mood", rows["mood"][n : n + 2]) for n in (2, 4)]
        while "hyperformer_waiting_rows 4.0" not in server.ask("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        status, body, headers = server.infer("mood", rows["mood"][:2])
        assert status == 429
        assert "4 rows are waiting" in body["error"]
        assert int(headers["retry-after"]) >= 1
        held.set()
        assert [one.result(60)[0] for one in [first, *waiting]] == [200] * 3
        assert "hyperformer_batch_rows_count 2.0" in server.ask("GET", "/metrics")[1].decode()  # the two in one


def test_one_who_goes_away_in_the_middle_is_no_failure_of_the_server(bundles, rows, caplog):
    with running(bundles) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v2/models/mood/infer HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
        while 'status="499"' not in server.ask("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        assert server.infer("mood", rows["mood"][:1])[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_failure_is_a_500_that_tells_nothing_and_the_next_request_is_answered(bundles, rows, monkeypatch):
    with running(bundles) as server:
        with monkeypatch.context() as broken:
            broken.setattr(Bundle, "answer_sources", lambda *_: 1 / 0)
            assert server.infer("mood", rows["mood"][:1])[:2] == (500, {"error": "the server failed; its log says why"})
        assert server.infer("mood", rows["mood"][:1])[0] == 200


def test_mixed_tasks_from_many_clients_each_get_their_own(root, rows):
    expected = {task: [answer.label for answer in load(root)[task].answer(rows[task])] for task in TASKS}
    with running(root) as server, ThreadPoolExecutor(16) as several:
        asked = [(task, n) for n in range(12) for task in TASKS] * 3
        found = list(several.map(lambda one: server.infer(one[0], [rows[one[0]][one[1]]]), asked))
        for (task, n), (status, body, _) in zip(asked, found, strict=True):
            assert (status, labels_of(body)) == (200, [expected[task][n]])
        metrics = server.ask("GET", "/metrics")[1].decode()
        for task in TASKS:
            assert f'hyperformer_requests_total{{status="200",task="{task}"}} 36.0' in metrics


def test_a_task_is_replaced_while_it_is_asked_and_no_request_is_lost(copied, rows):
    answers, stop = [], threading.Event()
    with running(copied, poll_seconds=0.05) as server:
        before = server.infer("mood", rows["mood"][:1])[1]

        def ask():
            while not stop.is_set():
                answers.append(server.infer("mood", rows["mood"][:1])[:2])

        with ThreadPoolExecutor(4) as several:
            asking = [several.submit(ask) for _ in range(4)]
            time.sleep(0.3)
            (copied / "mood").rename(copied.parent / "old")
            shutil.copytree(copied / "mood3", copied.parent / "new")
            (copied.parent / "new").rename(copied / "mood")
            began = time.monotonic()
            while server.ask("GET", "/v2/models/mood")[1]["parameters"]["labels"] == ["negative", "positive"]:
                assert time.monotonic() - began < 30
                time.sleep(0.05)
            time.sleep(0.3)
            stop.set()
            for one in asking:
                one.result(60)
    assert {status for status, _ in answers} == {200}
    assert labels_of(answers[0][1]) == labels_of(before)
    assert len(answers[-1][1]["outputs"][1]["data"]) == 3


def test_schemathesis_finds_nothing(server, tmp_path):
    st = Path(sys.executable).with_name("st")
    command = [st, "--config-file", HERE / "schemathesis.toml", "run", f"http://{server.address}/openapi.json"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    for more, hooks in (
        (["--max-examples", "10"], {}),
        (["--phases", "fuzzing", "--include-path-regex", "infer"], {"SCHEMATHESIS_HOOKS": "fitting"}),
    ):
        done = subprocess.run(
            [*command, "--seed", "0", "--generation-database", "none", *more],
            cwd=tmp_path, env={**environment, **hooks}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    counted = server.ask("GET", "/metrics")[1].decode()
    assert any('status="200"' in line and float(line.split()[-1]) > 5 for line in counted.splitlines())


def test_told_to_stop_it_answers_what_it_accepted_and_exits_with_0(bundles, rows):
    command = [sys.executable, "-m", "hyperformer.cli", "serve", str(bundles), "--port", "0", "--threads", "1"]
    expected = [answer.label for answer in load(bundles)["mood"].answer(rows["mood"])] * 4
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = next(line for line in process.stderr if "tasks at" in line)
            server = Running(int(said.split("127.0.0.1:")[1].split("/")[0]))
            answers = []

            def ask():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    while True:
                        answers.append(server.infer("mood", rows["mood"] * 4))

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            while len(answers) < 8:
                assert any(thread.is_alive() for thread in threads)
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
            assert process.wait(60) == 0
            for thread in threads:
                thread.join(30)
        finally:
            process.kill()
    assert all((status, labels_of(body)) == (200, expected) for status, body, _ in answers)
    assert f"stopped after {len(answers)} requests" in said  # each that was taken had its answer


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere holds no exported tasks; give the folder that an export wrote"),
        (["ROOT", "--batch", "0"], "batch is 0, expected at least 1"),
        (["ROOT", "--port", "70000"], "port is 70000, expected at most 65535"),
        (["ROOT", "--rows", "9", "--queue", "8"], "rows is 9 and queue 8: a request of so many rows could never wait"),
        (["ROOT", "--threads", "0"], "threads is 0, expected at least 1"),
        (["ROOT", "--threads", "10000000000"], "threads is 10000000000, expected at most 1024"),
        (["ROOT", "--poll-seconds", "nan"], "poll_seconds is nan, expected at least 0"),
        (["ROOT", "--poll-seconds", "inf"], "poll_seconds is inf, expected at most 86400"),
        (["ROOT", "--host", "a" * 70, "--allowed-hosts", "*"], "cannot be listened at"),
    ],
)
def test_a_mistake_at_the_shell_is_a_sentence(bundles, arguments, said, capsys):
    assert main(["serve", *[str(bundles) if one == "ROOT" else one for one in arguments]]) == 1
    assert said in capsys.readouterr().err


def test_a_request_line_and_headers_without_end_are_refused(bundles):
    with running(bundles) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nX-A: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"a" * 10000)
            pytest.fail("ten megabytes of a header were taken")


def test_what_time_does_not_allow_is_told_so(bundles, rows, held):
    with running(bundles, shutdown_seconds=1) as server, ThreadPoolExecutor(2) as several:
        asked = several.submit(server.infer, "mood", rows["mood"][:1])
        while "hyperformer_batch_rows_count 1.0" not in server.ask("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        server.stop()
        threading.Timer(4, held.set).start()
        status, body, _ = asked.result(60)
        assert (status, body["error"]) == (503, "the server ends before it could answer; ask another one")


def test_a_port_that_is_taken_is_a_sentence(bundles, server, capsys):
    assert main(["serve", str(bundles), "--port", str(server.port)]) == 1
    assert f"127.0.0.1:{server.port} cannot be listened at (Address already in use); take" in capsys.readouterr().err
