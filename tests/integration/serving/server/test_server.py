"""The server over HTTP: the protocol, its limits, changes of tasks at runtime, and shutdown."""

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
from hyperformer.core.manifest import MANIFEST
from hyperformer.runtime import load
from hyperformer.runtime.bundle import Bundle

TASKS = list(task_settings())
HERE = Path(__file__).parent


@pytest.fixture(params=["bundles", "shared_base"])
def root(request):
    return request.getfixturevalue(request.param)


def labels_of(body):
    return next(output["data"] for output in body["outputs"] if output["name"] == "label")


def test_it_describes_itself_and_its_tasks(server):
    assert server.send("GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert server.send("GET", "/v2/health/ready")[:2] == (200, {"ready": True})
    assert server.send("GET", "/v2")[1]["name"] == "hyperformer"
    assert [entry["name"] for entry in server.send("POST", "/v2/repository/index")[1]] == sorted(TASKS)
    assert server.send("GET", "/v2/models/likeness/versions/1/ready")[:2] == (200, {"ready": True})
    metadata = server.send("GET", "/v2/models/likeness")[1]
    assert metadata["inputs"] == [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("a", "b")]
    assert {output["name"]: output["shape"] for output in metadata["outputs"]}["probabilities"] == [-1, 4]
    assert metadata["parameters"]["labels"] == ["0", "1", "2", "3"]
    assert metadata["parameters"]["example"] == {}


def test_a_renamed_label_is_in_metadata_and_answers(bundles, rows, tmp_path):
    root = shutil.copytree(bundles, tmp_path / "root")
    content = json.loads((root / "mood" / MANIFEST).read_text())
    (root / "mood" / MANIFEST).write_text(json.dumps({**content, "labels": ["bad", "good"]}))
    expected = [answer.label for answer in load(bundles)["mood"].answer(rows["mood"])]
    with running(root) as server:
        assert server.send("GET", "/v2/models/mood")[1]["parameters"]["labels"] == ["bad", "good"]
        labels = labels_of(server.infer("mood", rows["mood"])[1])
    assert labels == [{"negative": "bad", "positive": "good"}[label] for label in expected]


def test_the_client_of_triton_lists_describes_and_infers(root, rows):
    with running(root) as server:
        client = triton.InferenceServerClient(server.address)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.get_server_metadata()["name"] == "hyperformer"
        assert [entry["name"] for entry in client.get_model_repository_index()] == sorted(TASKS)
        for task in TASKS:
            assert client.is_model_ready(task, "1")
            columns = [tensor["name"] for tensor in client.get_model_metadata(task)["inputs"]]
            assert columns == list(rows[task][0])
            expected = load(root)[task].answer(rows[task])
            for binary in (True, False):
                inputs = []
                for name in columns:
                    texts = np.array([row[name].encode() for row in rows[task]], dtype=object)
                    inputs.append(triton.InferInput(name, [len(texts), 1], "BYTES"))
                    inputs[-1].set_data_from_numpy(texts.reshape(-1, 1), binary_data=binary)
                names = ["label", "probabilities", "truncated"] + (["value"] if task == "likeness" else [])
                outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
                result = client.infer(task, inputs, outputs=outputs, request_id="7")
                assert result.get_response()["id"] == "7"
                labels = [label.decode() if binary else label for label in result.as_numpy("label").tolist()]
                assert labels == [answer.label for answer in expected]
                probabilities = [list(answer.probabilities.values()) for answer in expected]
                np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities, atol=1e-5)
                assert not result.as_numpy("truncated").any()
                if task == "likeness":
                    values = [answer.value for answer in expected]
                    np.testing.assert_allclose(result.as_numpy("value"), values, atol=1e-4)


def test_only_requested_outputs_are_returned(server, rows):
    body = server.infer("mood", rows["mood"][:2], outputs=[{"name": "probabilities"}])[1]
    assert [(output["name"], output["shape"]) for output in body["outputs"]] == [("probabilities", [2, 2])]


def test_a_truncated_text_is_reported(server):
    body = server.infer("mood", [{"sentence": "word " * 200}])[1]
    assert next(output["data"] for output in body["outputs"] if output["name"] == "truncated") == [True]


VALID_INPUT = {"name": "sentence", "shape": [1], "datatype": "BYTES", "data": ["a film"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datatype": "FP32"}, "inputs.0.datatype: Input should be 'BYTES'"),
        ({"name": "sentenc"}, "unknown input 'sentenc'; expected the inputs sentence"),
        ({"shape": [2]}, r"has shape \[2\] and 1 texts; expected \[rows\] or"),
        ({"shape": [1, 2]}, r"has shape \[1, 2\] and 1 texts"),
        ({"shape": [0], "data": []}, "contains no rows; expected at least one"),
        ({"data": None}, "has neither data nor binary_data_size; expected exactly one"),
        ({"parameters": {"binary_data_size": 3}}, "has both data and binary_data_size; expected exactly one"),
        (
            {"data": None, "parameters": {"binary_data_size": 3}},
            "has binary_data_size 3; expected at most the 0 bytes left",
        ),
        ({"data": [1]}, "inputs.0.data"),
        ({"data": ["\ud800"]}, "surrogate|not a valid|Invalid JSON|unicode"),
        ({"shape": "1"}, "inputs.0.shape"),
        ({"shape": [2], "data": [["a", "b"]]}, r"the data of input 'sentence' does not match its shape \[2\]"),
        ({"shape": [1, 1], "data": [["a", "b"]]}, r"the data of input 'sentence' does not match its shape \[1, 1\]"),
        ({"parameters": {"binary_data_size": 0}}, "has both data and binary_data_size; expected exactly one"),
    ],
)
def test_a_request_that_does_not_match_the_task_is_refused(server, change, message):
    status, body, _ = server.send("POST", "/v2/models/mood/infer", {"inputs": [{**VALID_INPUT, **change}]})
    assert status == 400
    assert re.search(message, body["error"]), body


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("mood", b"{", {}, 400, "request body: Invalid JSON"),
        ("mood", {"inputs": []}, {}, 400, "inputs: List should have at least 1 item"),
        (
            "mood",
            {"inputs": [VALID_INPUT, VALID_INPUT]},
            {},
            400,
            "duplicate input 'sentence'; expected each input once",
        ),
        ("mood", {"inputs": [VALID_INPUT], "outputs": [{"name": "logits"}]}, {}, 400, "unknown output 'logits'"),
        (
            "mood",
            {"inputs": [VALID_INPUT], "parameters": {"binary_data_output": "false"}},
            *({}, 400, "parameter binary_data_output is 'false'; expected true or false"),
        ),
        ("mood", b"{}", {"Inference-Header-Content-Length": "9" * 5000}, 400, "expected the length of the JSON"),
        (
            "likeness",
            {"inputs": [{**VALID_INPUT, "name": "a"}]},
            {},
            400,
            "missing input 'b'; expected the inputs a, b",
        ),
        (
            "mood",
            b"{}",
            {"Inference-Header-Content-Length": "9"},
            400,
            "expected the length of the JSON, at most 2 bytes",
        ),
        ("mood", {"inputs": [VALID_INPUT]}, {"Content-Encoding": "gzip"}, 415, "is 'gzip'; expected none"),
        ("mod", {"inputs": [VALID_INPUT]}, {}, 404, "unknown task 'mod'; expected one of likeness, mood, mood3"),
        ("mood/versions/2", {"inputs": [VALID_INPUT]}, {}, 404, "task 'mood' has no version '2'; expected 1"),
    ],
)
def test_a_request_that_cannot_be_parsed_is_refused(server, path, body, headers, status, message):
    answered, response, _ = server.send("POST", f"/v2/models/{path}/infer", body, headers)
    assert answered == status
    assert message in response["error"]


def test_invalid_binary_tensors_are_refused(server):
    tensor = {k: v for k, v in VALID_INPUT.items() if k != "data"} | {"parameters": {"binary_data_size": 6}}
    body = json.dumps({"inputs": [tensor]}).encode()
    header = {"Inference-Header-Content-Length": str(len(body))}
    for tensors, message in (
        (b"\x09\0\0\0ab", "ends in the middle of a text"),
        (b"\x02\0\0\0\xff\xfe", "has a text that is not valid UTF-8"),
        (b"\x02\0\0\0abmore", "4 bytes follow the last tensor"),
    ):
        status, response, _ = server.send("POST", "/v2/models/mood/infer", body + tensors, header)
        assert (status, message in response["error"]) == (400, True), response


def test_an_unknown_path_and_a_wrong_method_are_refused(server):
    assert server.send("GET", "/v3")[:2] == (404, {"error": "Not Found"})
    status, body, headers = server.send("GET", "/v2/models/mood/infer")
    assert (status, body, headers["allow"]) == (405, {"error": "Method Not Allowed"}, "POST")


def test_limits_of_rows_texts_and_bodies(bundles):
    with running(bundles, rows=3, text_bytes=20, body_bytes=2000) as server:
        assert server.infer("mood", [{"sentence": "ä" * 10}] * 3)[0] == 200
        status, body, _ = server.infer("mood", [{"sentence": "a"}] * 4)
        assert (status, body["error"]) == (413, "the request has 4 rows; expected at most 3. Split the request.")
        status, body, _ = server.infer("mood", [{"sentence": "ä" * 11}])
        assert (status, body["error"]) == (413, "a text has 22 bytes; expected at most 20. Shorten the text.")
        status, body, _ = server.infer("mood", [{"sentence": "a" * 3000}])
        assert (status, body["error"]) == (
            413,
            "the request body has more than 2000 bytes. Send fewer rows per request.",
        )


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


def test_a_full_queue_returns_a_retry_time_and_loses_nothing(bundles, rows, held):
    with running(bundles, queue=4, rows=4) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.infer, "mood", rows["mood"][:2])
        while "hyperformer_batch_rows_count 1.0" not in server.send("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        waiting = [pool.submit(server.infer, "mood", rows["mood"][n : n + 2]) for n in (2, 4)]
        while "hyperformer_waiting_rows 4.0" not in server.send("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        status, body, headers = server.infer("mood", rows["mood"][:2])
        assert status == 429
        assert "4 rows are waiting" in body["error"]
        assert int(headers["retry-after"]) >= 1
        held.set()
        assert [future.result(60)[0] for future in [first, *waiting]] == [200] * 3
        assert "hyperformer_batch_rows_count 2.0" in server.send("GET", "/metrics")[1].decode()  # both in one batch


def test_a_client_that_disconnects_causes_no_server_error(bundles, rows, caplog):
    with running(bundles) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v2/models/mood/infer HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
        while 'status="499"' not in server.send("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        assert server.infer("mood", rows["mood"][:1])[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_internal_error_is_a_500_without_details_and_the_next_request_is_answered(bundles, rows, monkeypatch):
    with running(bundles) as server:
        with monkeypatch.context() as broken:
            broken.setattr(Bundle, "answer_sources", lambda *_: 1 / 0)
            assert server.infer("mood", rows["mood"][:1])[:2] == (
                500,
                {"error": "internal server error; see the log of the server"},
            )
        assert server.infer("mood", rows["mood"][:1])[0] == 200


def test_mixed_tasks_of_many_clients_each_get_their_answers(root, rows):
    expected = {task: [answer.label for answer in load(root)[task].answer(rows[task])] for task in TASKS}
    with running(root) as server, ThreadPoolExecutor(16) as pool:
        requests = [(task, n) for n in range(12) for task in TASKS] * 3
        responses = list(pool.map(lambda request: server.infer(request[0], [rows[request[0]][request[1]]]), requests))
        for (task, n), (status, body, _) in zip(requests, responses, strict=True):
            assert (status, labels_of(body)) == (200, [expected[task][n]])
        metrics = server.send("GET", "/metrics")[1].decode()
        for task in TASKS:
            assert f'hyperformer_requests_total{{status="200",task="{task}"}} 36.0' in metrics


def test_a_task_is_replaced_while_in_use_and_no_request_is_lost(copied, rows):
    answers, stop = [], threading.Event()
    with running(copied, poll_seconds=0.05) as server:
        before = server.infer("mood", rows["mood"][:1])[1]

        def send_requests():
            while not stop.is_set():
                answers.append(server.infer("mood", rows["mood"][:1])[:2])

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(send_requests) for _ in range(4)]
            time.sleep(0.3)
            (copied / "mood").rename(copied.parent / "old")
            shutil.copytree(copied / "mood3", copied.parent / "new")
            (copied.parent / "new").rename(copied / "mood")
            start = time.monotonic()
            while server.send("GET", "/v2/models/mood")[1]["parameters"]["labels"] == ["negative", "positive"]:
                assert time.monotonic() - start < 30
                time.sleep(0.05)
            time.sleep(0.3)
            stop.set()
            for future in futures:
                future.result(60)
    assert {status for status, _ in answers} == {200}
    assert labels_of(answers[0][1]) == labels_of(before)
    assert len(answers[-1][1]["outputs"][1]["data"]) == 3


def test_schemathesis_finds_nothing(server, tmp_path):
    st = Path(sys.executable).with_name("st")
    command = [st, "--config-file", HERE / "schemathesis.toml", "run", f"http://{server.address}/openapi.json"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    for options, hooks in (
        (["--max-examples", "10"], {}),
        (["--phases", "fuzzing", "--include-path-regex", "infer"], {"SCHEMATHESIS_HOOKS": "fitting"}),
    ):
        done = subprocess.run(
            [*command, "--seed", "0", "--generation-database", "none", *options],
            cwd=tmp_path, env={**environment, **hooks}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    metrics = server.send("GET", "/metrics")[1].decode()
    assert any('status="200"' in line and float(line.split()[-1]) > 5 for line in metrics.splitlines())


def test_after_a_signal_it_answers_accepted_requests_and_exits_with_0(bundles, rows):
    command = [sys.executable, "-m", "hyperformer.cli", "serve", str(bundles), "--port", "0", "--threads", "1"]
    expected = [answer.label for answer in load(bundles)["mood"].answer(rows["mood"])] * 4
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "tasks at" in line)
            server = Running(int(line.split("127.0.0.1:")[1].split("/")[0]))
            answers = []

            def send_requests():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    while True:
                        answers.append(server.infer("mood", rows["mood"] * 4))

            threads = [threading.Thread(target=send_requests) for _ in range(4)]
            for thread in threads:
                thread.start()
            while len(answers) < 8:
                assert any(thread.is_alive() for thread in threads)
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            log = process.stderr.read()
            assert process.wait(60) == 0
            for thread in threads:
                thread.join(30)
        finally:
            process.kill()
    assert all((status, labels_of(body)) == (200, expected) for status, body, _ in answers)
    assert f"stopped after {len(answers)} requests" in log  # each accepted request was answered


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere contains no exported tasks. Use the folder that an export wrote."),
        (["ROOT", "--batch", "0"], "batch is 0; expected at least 1"),
        (["ROOT", "--port", "70000"], "port is 70000; expected at most 65535"),
        (["ROOT", "--rows", "9", "--queue", "8"], "rows is 9 and queue is 8; expected rows to be at most queue"),
        (["ROOT", "--threads", "0"], "threads is 0; expected at least 1"),
        (["ROOT", "--threads", "10000000000"], "threads is 10000000000; expected at most 1024"),
        (["ROOT", "--poll-seconds", "nan"], "poll_seconds is nan; expected at least 0"),
        (["ROOT", "--poll-seconds", "inf"], "poll_seconds is inf; expected at most 86400"),
        (["ROOT", "--host", "a" * 70, "--allowed-hosts", "*"], "cannot bind to"),
    ],
)
def test_an_invalid_command_line_is_a_readable_error(bundles, arguments, message, capsys):
    assert main(["serve", *[str(bundles) if argument == "ROOT" else argument for argument in arguments]]) == 1
    assert message in capsys.readouterr().err


def test_endless_headers_are_refused(bundles):
    with running(bundles) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nX-A: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"a" * 10000)
            pytest.fail("ten megabytes of a header were accepted")


def test_requests_beyond_the_shutdown_time_limit_get_503(bundles, rows, held):
    with running(bundles, shutdown_seconds=1) as server, ThreadPoolExecutor(2) as pool:
        future = pool.submit(server.infer, "mood", rows["mood"][:1])
        while "hyperformer_batch_rows_count 1.0" not in server.send("GET", "/metrics")[1].decode():
            time.sleep(0.01)
        server.stop()
        threading.Timer(4, held.set).start()
        status, body, _ = future.result(60)
        assert (status, body["error"]) == (503, "the server shut down before it could respond. Use another server.")


def test_a_port_in_use_is_a_readable_error(bundles, server, capsys):
    assert main(["serve", str(bundles), "--port", str(server.port)]) == 1
    assert f"cannot bind to 127.0.0.1:{server.port} (Address already in use). Choose" in capsys.readouterr().err
